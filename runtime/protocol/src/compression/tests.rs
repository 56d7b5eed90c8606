//! What Python compressed, what is broken, and what no stream may do. `tests/golden/make.py` made the vectors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

const ALL: [Compression; 5] =
    [Compression::Zlib, Compression::Bzip2, Compression::Xz, Compression::Brotli, Compression::Zstd];

const BODY: &[u8] = include_bytes!("../../tests/golden/compressed.json");

/// What Python made of [`BODY`], and of nothing.
fn vectors() -> Vec<(Compression, Vec<u8>)> {
    let lines = include_str!("../../tests/golden/compressions.tsv").lines();
    let vector = |line: &str| {
        let (name, packed) = line.split_once('\t').unwrap();
        (Compression::of(name).unwrap(), STANDARD.decode(packed).unwrap())
    };
    lines.map(vector).collect()
}

#[test]
fn what_python_compressed_is_read() {
    let mut whole = Vec::new();
    for (compression, packed) in vectors() {
        let plain = decompress(&packed, compression, BODY.len()).unwrap();
        assert!(plain.is_empty() || plain == BODY, "{compression:?}");
        whole.push((compression, plain.is_empty()));
    }
    for compression in ALL {
        assert!(whole.contains(&(compression, true)) && whole.contains(&(compression, false)));
    }
    assert!(vectors().iter().any(|(_, packed)| packed.starts_with(&[0x1f, 0x8b])), "a real gzip stream");
}

#[test]
fn a_cut_or_a_followed_stream_is_refused() {
    for (compression, packed) in vectors() {
        for cut in 0..packed.len() {
            let error = decompress(&packed[..cut], compression, BODY.len()).unwrap_err();
            assert!(!matches!(error, CompressionError::TooLarge(_)), "{compression:?} {cut}: {error}");
        }
        let followed = [packed.as_slice(), b"x"].concat();
        let error = decompress(&followed, compression, BODY.len()).unwrap_err();
        assert!(matches!(error, CompressionError::Trailing { extra: 1, .. }), "{compression:?}: {error}");
        let twice = [packed.as_slice(), packed.as_slice()].concat();
        assert!(decompress(&twice, compression, 2 * BODY.len()).is_err(), "{compression:?}");
    }
}

#[test]
fn nothing_expands_beyond_the_limit() {
    let zeros = vec![0; 4 << 20];
    for compression in ALL {
        let bomb = compress(&zeros, compression).unwrap();
        assert!(bomb.len() < zeros.len() / 100, "{compression:?}");
        let refused = |limit| match decompress(&bomb, compression, limit) {
            Err(CompressionError::TooLarge(overflow)) => overflow.limit == limit,
            _ => false,
        };
        assert!(refused(0) && refused(1000) && refused(zeros.len() - 1), "{compression:?}");
        assert_eq!(decompress(&bomb, compression, zeros.len()).unwrap().len(), zeros.len());
    }
}

#[test]
fn sizes_and_windows_that_a_stream_claims_are_not_believed() {
    // A Zstandard frame of one segment that claims a petabyte, and one whose window is 128 MiB.
    let claims: [&[u8]; 2] = [
        &[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0],
        &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 1, 0, 0],
    ];
    for frame in claims {
        let error = decompress(frame, Compression::Zstd, 1 << 40).unwrap_err();
        assert!(matches!(error, CompressionError::Invalid { .. }), "{error}");
    }
    // xz with a dictionary of 64 MiB, as `lzma.compress(…, preset=9)` writes it.
    let large = {
        use std::io::Write as _;
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 9);
        encoder.write_all(b"x").unwrap();
        encoder.finish().unwrap()
    };
    let error = decompress(&large, Compression::Xz, 1 << 40).unwrap_err();
    assert!(matches!(error, CompressionError::Invalid { .. }), "{error}");
}

#[test]
fn names_are_kombus() {
    for (names, compression) in [
        (&["gzip", "zlib", "application/x-gzip", "GZIP"][..], Compression::Zlib),
        (&["bzip2", "bzip", "application/x-bz2"], Compression::Bzip2),
        (&["lzma", "xz", "application/x-lzma"], Compression::Xz),
        (&["brotli", "application/x-brotli"], Compression::Brotli),
        (&["zstd", "zstandard", "application/zstd"], Compression::Zstd),
    ] {
        for name in names {
            assert_eq!(Compression::of(name), Some(compression), "{name}");
        }
        assert_eq!(Compression::of(compression.media_type()), Some(compression));
    }
    assert_eq!(Compression::of("snappy"), None);
}

#[test]
fn stored_results_say_how_they_are_compressed() {
    let plain = Bytes::from_static(BODY);
    assert_eq!(decompress_stored(&plain, 0).unwrap(), plain);
    let stored = compress_stored(&plain, Compression::Zlib).unwrap();
    assert!(
        stored.starts_with(b"\0celery-compressed\0application/x-gzip\0\x78\x9c") && is_compressed(&stored)
    );
    for compression in ALL {
        let stored = compress_stored(&plain, compression).unwrap();
        assert_eq!(decompress_stored(&stored, plain.len()).unwrap(), plain, "{compression:?}");
        let error = decompress_stored(&stored, 10).unwrap_err();
        assert!(matches!(error, CompressionError::TooLarge(_)), "{compression:?}: {error}");
    }
    for (stored, shown) in [
        (&b"\0celery-compressed\0snappy\0x"[..], "found `snappy`"),
        (b"\0celery-compressed\0gzip", "found `gzip`"),
        (b"\0celery-compressed\0application/x-gzip\0x", "expected the beginning"),
    ] {
        let error = decompress_stored(&Bytes::from_static(stored), 10).unwrap_err().to_string();
        assert!(error.contains(shown) || error.contains("zlib stream"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_compressed_comes_back(plain in prop::collection::vec(any::<u8>(), 0..4000), repeats in 1_usize..40) {
        let plain = plain.repeat(repeats);
        for compression in ALL {
            let packed = compress(&plain, compression).unwrap();
            prop_assert_eq!(decompress(&packed, compression, plain.len()).unwrap(), plain.clone());
        }
    }

    #[test]
    fn no_stream_panics(which in 0..vectors().len(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let (compression, mut packed) = vectors().swap_remove(which);
        for (place, byte) in flips {
            let place = place.index(packed.len());
            packed[place] ^= byte;
        }
        if let Ok(plain) = decompress(&packed, compression, CAP) {
            prop_assert!(plain.len() <= CAP);
        }
        for compression in ALL {
            let _ = decompress(&packed, compression, CAP);
        }
    }
}

/// Limit of the streams that are broken at random.
const CAP: usize = 64 << 10;
