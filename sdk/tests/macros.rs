//! What `#[task]` accepts, and what it says to the rest. Each file of `ui/fail` has its expected text beside it.

#[test]
fn task_attribute() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
