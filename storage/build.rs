//! Lets a binary with RocksDB in it need nothing of the system but glibc: the C++ library, which
//! RocksDB is written against, and the compiler's own, which unwinds, are linked in as archives.
//!
//! The linker is told `-lstdc++` and `-lgcc_s`. It takes each from the first folder that has it,
//! and the system's folders come last; so here a folder comes before them, in which those names
//! mean archives.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CXX");
    if env::var_os("CARGO_FEATURE_ROCKSDB").is_none()
        || env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu")
    {
        return;
    }
    match archives() {
        Some(archives) => {
            let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("link");
            make_folder(&folder, &archives).expect("cargo's folder can be written to");
            println!("cargo::rustc-link-search=native={}", folder.display());
        }
        None => println!(
            "cargo::warning=the C++ compiler has no libstdc++.a, libgcc.a and libgcc_eh.a for this \
             target: what is built with RocksDB will need libstdc++.so.6 and libgcc_s.so.1"
        ),
    }
}

struct Archives {
    cxx: PathBuf,
    compiler: PathBuf,
    unwinding: PathBuf,
}

fn archives() -> Option<Archives> {
    // The compiler that is asked builds for this machine.
    if env::var("HOST") != env::var("TARGET") {
        return None;
    }
    Some(Archives {
        cxx: archive("libstdc++.a")?,
        compiler: archive("libgcc.a")?,
        unwinding: archive("libgcc_eh.a")?,
    })
}

/// Where the C++ compiler has an archive.
fn archive(name: &str) -> Option<PathBuf> {
    let compiler = env::var_os("CXX").unwrap_or_else(|| "g++".into());
    let output = Command::new(compiler).arg(format!("-print-file-name={name}")).output().ok()?;
    // One that it has not it answers with the bare name.
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
    if !output.status.success() || !path.is_absolute() || !path.exists() {
        return None;
    }
    println!("cargo::rerun-if-changed={}", path.display());
    Some(path)
}

fn make_folder(folder: &Path, archives: &Archives) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir(folder)?;
    symlink(&archives.cxx, folder.join("libstdc++.a"))?;
    // A linker script, as the system's own file of this name is.
    let (unwinding, compiler) = (archives.unwinding.display(), archives.compiler.display());
    fs::write(folder.join("libgcc_s.so"), format!("GROUP ( {unwinding} {compiler} )\n"))
}
