//! File systems of other machines, which the database must not lie on: neither SQLite's log nor the locks of the living
//! work there as they do on one machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Kinds of file systems, as `statfs` numbers them (linux/magic.h, and the file systems' own headers).
const NETWORK: [(u64, &str); 12] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x4750_4653, "GPFS"),
];
/// Programs that serve a file system: some are local, so that their names decide.
const FUSE: u64 = 0x6573_5546;
/// Those that are not, as they stand in `/proc/self/mountinfo`.
const FUSE_NETWORK: [&str; 12] = [
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.goofys",
    "fuse.gcsfuse",
    "fuse.blobfuse2",
    "fuse.juicefs",
    "fuse.davfs",
    "fuse.mfs",
];

/// Name of the network file system that a folder lies on; `None`: it lies on this machine, or that can't be told.
pub(crate) fn name(folder: &Path) -> Option<String> {
    let kind = rustix::fs::statfs(folder).ok()?.f_type;
    // The kernel's numbers have 32 bits; the field is signed, and wider on most machines.
    let kind = u64::from(kind as u32);
    let program = if kind == FUSE { mounted(folder) } else { None };
    recognize(kind, program.as_deref())
}

fn recognize(kind: u64, program: Option<&str>) -> Option<String> {
    let known = NETWORK.iter().find(|(number, _)| *number == kind).map(|(_, name)| (*name).to_owned());
    known.or_else(|| program.filter(|program| FUSE_NETWORK.contains(program)).map(str::to_owned))
}

/// Type of the file system in the words of the mount table.
fn mounted(folder: &Path) -> Option<String> {
    let device = fs::metadata(folder).ok()?.dev();
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| read_mount(line, &device)).map(str::to_owned)
}

/// Reads `36 35 0:31 / /mnt rw,noatime master:1 - fuse.sshfs me@there: rw`.
fn read_mount<'a>(line: &'a str, device: &str) -> Option<&'a str> {
    let (place, kind) = line.split_once(" - ")?;
    if place.split(' ').nth(2)? == device { kind.split(' ').next() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_known() {
        for (kind, program, expected) in [
            (0x6969, None, Some("NFS")),
            (0xFF53_4D42, None, Some("CIFS")),
            (FUSE, Some("fuse.sshfs"), Some("fuse.sshfs")),
            (FUSE, Some("fuseblk"), None),
            (FUSE, None, None),
            (0xEF53, None, None),
        ] {
            assert_eq!(recognize(kind, program).as_deref(), expected, "{kind:x} {program:?}");
        }
    }

    #[test]
    fn the_mount_table_is_read() {
        let line = "36 35 0:31 / /mnt rw,noatime master:1 - fuse.sshfs me@there: rw";
        assert_eq!(read_mount(line, "0:31"), Some("fuse.sshfs"));
        assert_eq!(read_mount(line, "0:32"), None);
        assert_eq!(read_mount("nonsense", "0:31"), None);
    }

    #[test]
    fn this_machine_is_no_network() {
        assert_eq!(name(Path::new("/proc")), None);
        assert_eq!(name(Path::new("/no/such/folder")), None);
    }
}
