import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

import javax.tools.Diagnostic;
import javax.tools.DiagnosticCollector;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/**
 * Compiles one job for each line of its input: class path, folder for classes and source files, with
 * tabs between them. It answers each with a line: {@code ok}, or {@code failed} and the first error.
 */
public class Compile {
    public static void main(String[] none) throws Exception {
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        StandardJavaFileManager files =
                compiler.getStandardFileManager(null, Locale.ROOT, StandardCharsets.UTF_8);
        BufferedReader jobs =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String job = jobs.readLine(); job != null; job = jobs.readLine()) {
            String answer;
            try {
                answer = compiled(compiler, files, Arrays.asList(job.split("\t")));
            } catch (Exception | StackOverflowError | OutOfMemoryError error) {
                answer = "failed\tthe compiler gives up: " + error.getClass().getSimpleName();
            }
            System.out.println(answer);
        }
    }

    private static String compiled(
            JavaCompiler compiler, StandardJavaFileManager files, List<String> job) {
        DiagnosticCollector<JavaFileObject> found = new DiagnosticCollector<>();
        List<String> options = List.of(
                "-proc:none", "-implicit:none", "-nowarn", "--release", "17",
                "-sourcepath", "", "-cp", job.get(0), "-d", job.get(1));
        List<File> sources = job.subList(2, job.size()).stream().map(File::new).toList();
        boolean ok = compiler.getTask(
                null, files, found, options, null, files.getJavaFileObjectsFromFiles(sources)).call();
        if (ok) {
            return "ok";
        }
        for (Diagnostic<? extends JavaFileObject> each : found.getDiagnostics()) {
            if (each.getKind() == Diagnostic.Kind.ERROR) {
                String text = each.getMessage(Locale.ROOT).lines().findFirst().orElse("");
                return "failed\tline " + each.getLineNumber() + ": " + text;
            }
        }
        return "failed\tno error is told";
    }
}
