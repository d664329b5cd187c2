"""Tasks for lm-evaluation-harness: YAML files, and the Python files that they name in `!function`.

The harness finds them with `--include_path "$(uvmerge tasks-path)"`. It imports each Python file by its
path, so these files hold nothing but calls of `uvmerge.tasks`.
"""
