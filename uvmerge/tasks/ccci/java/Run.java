import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Method;

/**
 * Runs the tests of a class: its public methods whose names start with {@code test}. A pass is what was
 * read from the input before the class was loaded, written when all tests are through.
 */
public class Run {
    public static void main(String[] tests) throws Exception {
        byte[] pass = new byte[Integer.parseInt(tests[1])];
        try (InputStream input = new FileInputStream(FileDescriptor.in)) {
            for (int at = 0, read = 0; read >= 0 && at < pass.length; at += read) {
                read = input.read(pass, at, pass.length - at);
            }
        }
        System.setOut(new PrintStream(OutputStream.nullOutputStream()));
        System.setErr(new PrintStream(OutputStream.nullOutputStream()));
        if (passes(tests[0])) {
            new FileOutputStream(FileDescriptor.out).write(pass);
            Runtime.getRuntime().halt(0);
        }
        Runtime.getRuntime().halt(1);
    }

    private static boolean passes(String name) {
        int run = 0;
        try {
            Class<?> tests = Class.forName(name);
            for (Method method : tests.getMethods()) {
                if (method.getName().startsWith("test") && method.getParameterCount() == 0) {
                    method.invoke(tests.getDeclaredConstructor().newInstance());
                    run++;
                }
            }
        } catch (Throwable failure) {
            return false;
        }
        return run > 0;
    }
}
