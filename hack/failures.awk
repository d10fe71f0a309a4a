# The part of a log that tells what failed: what failed tests wrote, else the last lines.
/^failures:$/ { showing = 1 }
/^test result: / { showing = 0 }
/^(not ok - |--- FAIL|FAIL |FAILED|error|thread .* panicked)/ || showing { if (shown < 150) { print; shown++ } }
{ last[NR % 40] = $0 }
END {
  if (!shown) for (i = NR - 39; i <= NR; i++) if (i > 0) print last[i % 40]
}
