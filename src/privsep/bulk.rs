//! Data too long for a message: a file in memory, whose descriptor travels beside one. The parent can send it even if the engine is not reading.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// More than the prefixes of [`MAX_ROUTES`](crate::config::MAX_ROUTES) routes take, in bytes.
const LONGEST: u64 = 16 << 20;

/// Writes `value` to a new file in memory. Errors are those of memfd_create(2) and write(2).
pub fn write(value: &impl Serialize) -> io::Result<OwnedFd> {
    let bytes = postcard::to_stdvec(value).map_err(io::Error::other)?;
    let create = |more| memfd_create("tund", MemfdFlags::CLOEXEC | more);
    let created = match create(MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 lacks this flag.
        Err(Errno::INVAL) => create(MemfdFlags::empty()),
        // The answers of seccomp filters.
        Err(Errno::PERM | Errno::NOSYS) => return through_pipe(&bytes),
        result => result,
    };
    let mut file = File::from(created?);
    file.write_all(&bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// The same with a pipe, up to its capacity: 64 KiB at least.
fn through_pipe(bytes: &[u8]) -> io::Result<OwnedFd> {
    let (read, mut write) = io::pipe()?;
    rustix::io::ioctl_fionbio(&write, true)?;
    // If it stays smaller, the write fails.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, bytes.len().max(1 << 16));
    write.write_all(bytes)?;
    Ok(read.into())
}

/// Reads what [`write()`] wrote. `InvalidData`: something else; otherwise the errors of read(2).
pub fn read<T: DeserializeOwned>(fd: OwnedFd) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::from(fd).take(LONGEST).read_to_end(&mut bytes)?;
    match postcard::take_from_bytes(&bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "not what the other process writes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_ROUTES;
    use crate::core::sources::Sources;
    use ipnet::IpNet;
    use std::net::IpAddr;

    #[test]
    fn as_many_prefixes_as_there_may_be_routes_cross_in_one_file() {
        let apart = (0..MAX_ROUTES as u128)
            .map(|index| IpNet::from(IpAddr::from(((0xfd << 120) + 2 * index).to_be_bytes())));
        let sources = Sources::default().with(&apart.collect::<Vec<_>>());
        assert_eq!(read::<Sources>(write(&sources).unwrap()).unwrap(), sources);
    }

    #[test]
    fn a_pipe_does_as_well_for_what_it_has_room_for() {
        let few = Sources::default().with(&["10.0.0.0/8".parse().unwrap()]);
        let bytes = postcard::to_stdvec(&few).unwrap();
        assert_eq!(read::<Sources>(through_pipe(&bytes).unwrap()).unwrap(), few);
        // A user without the right to such a pipe gets an error, and does not block.
        match through_pipe(&vec![7; LONGEST as usize]) {
            Ok(pipe) => {
                let mut bytes = Vec::new();
                File::from(pipe).read_to_end(&mut bytes).unwrap();
                assert!(bytes == vec![7; LONGEST as usize]);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }

    #[test]
    fn what_is_no_such_file_is_an_error() {
        for file in ["/dev/zero", "/dev/null"] {
            let error = read::<Sources>(File::open(file).unwrap().into()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{file}");
        }
    }
}
