//! What the README says of settings is what the program knows of them.

use cartwright::config::settings;

#[test]
fn the_readme_lists_every_setting_as_it_is() {
    let readme = include_str!("../../README.md");
    let table = settings::markdown();
    assert!(
        readme.contains(&table),
        "paste this table into README.md:\n{table}"
    );
}
