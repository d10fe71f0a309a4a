# Sums what test programs say of themselves: passed, failed, skipped.
# cargo test:  test result: ok. 12 passed; 0 failed; 1 ignored; …
# go test -v:  --- PASS: TestX (0.00s)   (subtests are indented, and not counted)
# our scripts: ok - what   not ok - what   skip - what and why
# conformance: N passed, N failed, N skipped
/^test result: / { passed += $4; failed += $6; skipped += $8; next }
/^--- PASS/ || /^ok - / { passed++; next }
/^--- FAIL/ || /^not ok - / { failed++; next }
/^--- SKIP/ || /^skip - / { skipped++; next }
/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { passed += $1; failed += $3; skipped += $5 }
END { print passed + 0, failed + 0, skipped + 0 }
