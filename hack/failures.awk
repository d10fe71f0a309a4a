# The part of a log that tells what failed: compilers' errors, what failed tests wrote, else the last lines.
/^failures:$/ { tests = 1 }
/^test result: / { tests = 0 }
/^error/ { error = 1 }
/^$/ { error = 0 }
/^(not ok - |--- FAIL|FAIL|thread .* panicked)/ || tests || error { if (shown < 150) { print; shown++ } }
{ last[NR % 40] = $0 }
END {
  if (!shown) for (i = NR - 39; i <= NR; i++) if (i > 0) print last[i % 40]
}
