//! Images as a command line names them.

use std::str::FromStr;

use crate::{
    Hub,
    images::{self, Format, Image},
    kinds, text,
};

/// An image to push, as `hubsim serve --image` has it: `library/busybox:latest=oci-index`.
///
/// The kinds are `docker`, `oci`, `oci-index`, `docker-list`, `many-layers`, `large:SIZE`, `blobs:COUNTxSIZE` and
/// `every-kind`: one of each of [`kinds`], under tags of their own; the tag given is that of a plain image.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    repository: String,
    tag: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Busybox(Format),
    ManyLayers,
    Large(u64),
    Blobs(usize, u64),
    Every,
}

impl ImageSpec {
    /// Makes the image and pushes it.
    pub fn push(&self, hub: &Hub) -> Image {
        match self.kind {
            Kind::Busybox(format) => images::busybox(hub, &self.repository, &self.tag, format),
            Kind::ManyLayers => images::many_layers(hub, &self.repository, &self.tag),
            Kind::Large(size) => images::large(hub, &self.repository, &self.tag, size),
            Kind::Blobs(count, size) => images::image_of_blobs(hub, &self.repository, &self.tag, count, size),
            Kind::Every => kinds::push_all_with_image(hub, &self.repository, &self.tag),
        }
    }

    /// Returns the name with the tag.
    pub fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

impl FromStr for ImageSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, String> {
        let wrong = || format!("not an image such as library/busybox:latest=oci-index: {spec:?}");
        let (name, kind) = spec.split_once('=').ok_or_else(wrong)?;
        let (repository, tag) = name.rsplit_once(':').ok_or_else(wrong)?;
        let kind = match kind.split_once(':').unwrap_or((kind, "")) {
            ("docker", "") => Kind::Busybox(Format::DockerSingle),
            ("oci", "") => Kind::Busybox(Format::OciSingle),
            ("oci-index", "") => Kind::Busybox(Format::OciIndex),
            ("docker-list", "") => Kind::Busybox(Format::DockerList),
            ("many-layers", "") => Kind::ManyLayers,
            ("every-kind", "") => Kind::Every,
            ("large", size) => Kind::Large(text::parse_size(size)?),
            ("blobs", blobs) => {
                let (count, size) = blobs.split_once('x').ok_or_else(wrong)?;
                Kind::Blobs(count.parse().map_err(|_| wrong())?, text::parse_size(size)?)
            }
            _ => return Err(wrong()),
        };
        Ok(Self { repository: repository.to_owned(), tag: tag.to_owned(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_with_its_kind() {
        for spec in [
            "a/b:1=oci",
            "a:1=oci-index",
            "a:1=docker",
            "a:1=docker-list",
            "a:1=many-layers",
            "a:1=every-kind",
        ] {
            let read: ImageSpec = spec.parse().expect(spec);
            assert_eq!(Some(read.name().as_str()), spec.split('=').next());
        }
        assert!("a:1=large:5MiB".parse::<ImageSpec>().is_ok());
        assert!("a:1=blobs:200x100MB".parse::<ImageSpec>().is_ok());
        for wrong in ["", "a=oci", "a:1", "a:1=x", "a:1=oci:5", "a:1=large", "a:1=blobs:5"] {
            assert!(wrong.parse::<ImageSpec>().is_err(), "{wrong}");
        }
    }
}
