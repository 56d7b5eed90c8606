//! A page of documentation, taken apart: fenced blocks, and the prose between them.

use std::fs;
use std::path::PathBuf;

use rwork_tests::guests::root;

/// README.md or a file of `docs/`.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// Path from the root, such as `docs/cli.md`.
    pub(super) name: String,
    pub(super) text: String,
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Line of the opening fence, from 1.
    pub(super) line: usize,
    /// What stands behind the opening fence.
    pub(super) info: String,
    /// The lines in between, without the fence's own indentation.
    pub(super) text: String,
}

impl Page {
    /// README.md, then `docs/` by name.
    pub(super) fn all() -> Vec<Self> {
        let mut names = vec!["README.md".to_owned()];
        let mut docs: Vec<String> = fs::read_dir(root().join("docs"))
            .unwrap()
            .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
            .filter(|name| name.ends_with(".md"))
            .collect();
        docs.sort();
        names.append(&mut docs);
        assert!(names.len() > 5, "the pages were not found");
        names.into_iter().map(|name| Self::read(&name)).collect()
    }

    /// One page.
    pub(super) fn read(name: &str) -> Self {
        let text = fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), text }
    }

    /// A place in it, as errors name it.
    pub(super) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.name)
    }

    /// `docs/cli.md` → `cli`.
    pub(super) fn stem(&self) -> String {
        let name = self.name.rsplit('/').next().unwrap_or_default();
        name.trim_end_matches(".md").to_lowercase()
    }

    /// The folder that its relative links start from.
    pub(super) fn folder(&self) -> PathBuf {
        root().join(&self.name).parent().unwrap().to_path_buf()
    }

    pub(super) fn blocks(&self) -> Vec<Block> {
        self.parts().0
    }

    /// The lines outside of blocks, with their numbers.
    pub(super) fn prose(&self) -> Vec<(usize, &str)> {
        self.parts().1
    }

    /// The cells of each table row of the prose, with its line: `| a | b |` is `["a", "b"]`. Lines of dashes are left out.
    pub(super) fn rows(&self) -> Vec<(usize, Vec<&str>)> {
        let rows = self.prose().into_iter().filter_map(|(line, text)| {
            let inner = text.trim().strip_prefix('|')?.strip_suffix('|')?;
            Some((line, inner.split('|').map(str::trim).collect::<Vec<_>>()))
        });
        rows.filter(|(_, cells)| !cells.iter().all(|cell| cell.chars().all(|c| c == '-'))).collect()
    }

    fn parts(&self) -> (Vec<Block>, Vec<(usize, &str)>) {
        let (mut blocks, mut prose) = (Vec::new(), Vec::new());
        let mut lines = self.text.lines().zip(1..).map(|(text, line)| (line, text));
        while let Some((line, text)) = lines.next() {
            let Some(info) = text.trim_start().strip_prefix("```") else {
                prose.push((line, text));
                continue;
            };
            let indent = text.len() - text.trim_start().len();
            let mut block = Block { line, info: info.trim().to_owned(), text: String::new() };
            let mut closed = false;
            for (_, inner) in lines.by_ref() {
                if inner.trim() == "```" {
                    closed = true;
                    break;
                }
                let spaces = inner.len() - inner.trim_start().len();
                block.text.push_str(&inner[indent.min(spaces)..]);
                block.text.push('\n');
            }
            assert!(closed, "{}: the block has no end", self.at(line));
            blocks.push(block);
        }
        (blocks, prose)
    }
}

#[test]
fn a_page_is_taken_apart() {
    let text = "# A\n```toml x\na = 1\n```\n- b\n  ```\n    c\n  d\n  ```\n| k | `v` |\n|---|---|\n";
    let page = Page { name: "docs/a.md".to_owned(), text: text.to_owned() };
    assert_eq!(
        page.blocks(),
        [
            Block { line: 2, info: "toml x".to_owned(), text: "a = 1\n".to_owned() },
            Block { line: 6, info: String::new(), text: "  c\nd\n".to_owned() },
        ]
    );
    assert_eq!(page.prose()[..2], [(1, "# A"), (5, "- b")]);
    assert_eq!(page.rows(), [(10, vec!["k", "`v`"])]);
}
