//! Makes thumbnails of PNG and JPEG images. It needs no grant: an image comes with the message and leaves with the result.
//!
//! ```text
//! rwork call images.thumbnail @photo.jpeg 128 128 --wait --output thumbnail.jpeg
//! ```
//!
//! From Python, `bytes` in and `bytes` out:
//!
//! ```python
//! result = app.send_task("images.thumbnail", [open("photo.jpeg", "rb").read(), 128, 128]).get()
//! open("thumbnail.jpeg", "wb").write(result["image"])
//! ```
//!
//! An image that would need more memory than [`DECODED_BYTES_MAX`] is refused before it is decoded, with a clear error. The
//! sandbox's own limit stands behind that one.

use std::io::Cursor;

use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits};
use rwork::{Bytes, Context, TaskError};
use serde::{Deserialize, Serialize};

/// Bytes that a decoded image may take: 6000 × 6000 pixels in colour, and well within the plugin's memory.
pub const DECODED_BYTES_MAX: u64 = 128 << 20;

/// The largest thumbnail, in pixels on a side: anything larger is no thumbnail.
const SIDE_MAX: u32 = 4_096;

/// How an image is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Without loss.
    Png,
    /// Smaller, for photographs.
    Jpeg,
}

/// An image and its size in pixels.
#[derive(Debug, Serialize)]
pub struct Thumbnail {
    image: Bytes,
    format: Format,
    width: u32,
    height: u32,
    /// The size of the image that it was made of.
    original: (u32, u32),
}

/// Scales an image down to fit into `width` × `height` pixels, keeping its proportions. A smaller image stays as large as it
/// is. The format is that of the image, unless `format` names another.
#[rwork::task(soft_time_limit = "50s")]
pub fn thumbnail(
    ctx: &Context,
    image: &Bytes,
    width: u32,
    height: u32,
    format: Option<Format>,
) -> Result<Thumbnail, TaskError> {
    for (name, side) in [("width", width), ("height", height)] {
        if !(1..=SIDE_MAX).contains(&side) {
            return Err(TaskError::new(
                "ValueError",
                format!("expected `{name}` to be 1 to {SIDE_MAX}, got {side}"),
            ));
        }
    }
    let (decoded, found) = decode(image)?;
    let original = (decoded.width(), decoded.height());
    // Decoding and scaling cannot be interrupted; between them the soft time limit is noticed.
    ctx.checkpoint()?;
    let fits = original.0 <= width && original.1 <= height;
    let scaled = if fits { decoded } else { decoded.thumbnail(width, height) };
    ctx.checkpoint()?;
    let format = format.unwrap_or(found);
    let (width, height) = (scaled.width(), scaled.height());
    Ok(Thumbnail { image: encode(scaled, format)?, format, width, height, original })
}

fn decode(bytes: &[u8]) -> Result<(DynamicImage, Format), TaskError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let format = match reader.format() {
        Some(ImageFormat::Png) => Format::Png,
        Some(ImageFormat::Jpeg) => Format::Jpeg,
        _ => return Err(TaskError::new("ValueError", "expected a PNG or JPEG image, got something else")),
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    reader.limits(limits);
    Ok((reader.decode().map_err(image_error)?, format))
}

fn encode(image: DynamicImage, format: Format) -> Result<Bytes, TaskError> {
    let mut bytes = Cursor::new(Vec::new());
    match format {
        Format::Png => image.write_to(&mut bytes, ImageFormat::Png),
        // JPEG has no transparency.
        Format::Jpeg => DynamicImage::from(image.into_rgb8()).write_to(&mut bytes, ImageFormat::Jpeg),
    }
    .map_err(image_error)?;
    Ok(Bytes(bytes.into_inner()))
}

fn image_error(error: ImageError) -> TaskError {
    match error {
        ImageError::Limits(_) => {
            let text = format!("the image needs more than {} MiB when decoded", DECODED_BYTES_MAX >> 20);
            TaskError::new("ValueError", text).caused_by(&error)
        }
        // The sender's fault, and it stays one: another attempt gets the same bytes.
        other => TaskError::new("ValueError", other.to_string()).not_retryable(),
    }
}

rwork::plugin!(thumbnail);

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};
    use rwork::testing::{TestContext, run};

    use super::*;

    const TASK: &str = "images.thumbnail";

    fn picture(width: u32, height: u32, format: Format) -> Bytes {
        let pixels =
            RgbaImage::from_fn(width, height, |x, y| Rgba([(x % 256) as u8, (y % 256) as u8, 128, 255]));
        encode(DynamicImage::from(pixels), format).unwrap()
    }

    fn make(image: &Bytes, width: u32, height: u32, format: Option<Format>) -> Result<Thumbnail, TaskError> {
        thumbnail(&TestContext::new(TASK), image, width, height, format)
    }

    #[test]
    fn what_is_no_image_is_a_value_error() {
        let cut = Bytes(picture(40, 40, Format::Png)[..100].to_vec());
        for (image, width, wanted) in [
            (Bytes(b"hello".to_vec()), 10, "expected a PNG or JPEG image"),
            (Bytes::default(), 10, "expected a PNG or JPEG image"),
            (cut, 10, ""),
            (picture(4, 4, Format::Png), 0, "expected `width` to be 1 to 4096, got 0"),
            (picture(4, 4, Format::Png), 5_000, "expected `width` to be 1 to 4096, got 5000"),
        ] {
            let error = make(&image, width, 10, None).unwrap_err();
            assert_eq!(error.exc_type(), Some("ValueError"));
            assert!(error.message().unwrap().contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        // A few hundred bytes that claim to be 60,000 × 60,000 pixels. The size follows JPEG's frame marker.
        let mut bomb = picture(8, 8, Format::Jpeg);
        let frame = bomb.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
        bomb.0[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
        let error = make(&bomb, 10, 10, None).unwrap_err();
        assert_eq!(error.message(), Some("the image needs more than 128 MiB when decoded"));
    }

    #[test]
    fn proportions_and_format_are_kept() {
        for (format, size, wanted) in [
            (Format::Png, (200, 100), (64, 32)),
            (Format::Jpeg, (100, 200), (32, 64)),
            (Format::Png, (30, 20), (30, 20)),
        ] {
            let made = make(&picture(size.0, size.1, format), 64, 64, None).unwrap();
            assert_eq!(
                (made.width, made.height, made.format, made.original),
                (wanted.0, wanted.1, format, size)
            );
            let (decoded, found) = decode(&made.image).unwrap();
            assert_eq!((decoded.width(), decoded.height(), found), (wanted.0, wanted.1, format));
        }
    }

    #[test]
    fn the_format_can_be_changed() {
        let made = make(&picture(20, 20, Format::Png), 10, 10, Some(Format::Jpeg)).unwrap();
        assert_eq!(decode(&made.image).unwrap().1, Format::Jpeg);
    }

    #[test]
    fn pythons_bytes_go_in_and_come_out() {
        let image = rwork::to_json(&picture(8, 8, Format::Png)).unwrap();
        assert!(image.starts_with("{\"__type__\":\"base64\""));
        let answer = run(&PLUGIN, &TestContext::new(TASK), &format!("[{image}, 4, 4]"), "{}").unwrap();
        let answer: rwork::Value = answer.parse().unwrap();
        assert_eq!((&answer["width"], &answer["format"]), (&4.into(), &"png".into()));
        assert_eq!(answer["image"]["__type__"], "base64");
    }
}
