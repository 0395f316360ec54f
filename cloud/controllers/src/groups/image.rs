//! Names of container images, `[registry/]repository[:tag][@digest]`, and what an overrider does to them.

use ledge_crds::apps::{ImageComponent, ImageOverrider, OverriderOperator};

/// An image's name in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Image {
    registry: String,
    repository: String,
    tag: String,
    digest: String,
}

impl Image {
    fn parse(name: &str) -> Image {
        let (name, digest) = name.split_once('@').unwrap_or((name, ""));
        // A colon before the last slash is that of a port.
        let path = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name[path..].split_once(':') {
            Some((last, tag)) => (&name[..path + last.len()], tag),
            None => (name, ""),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => ("", name),
        };
        Image {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            digest: digest.to_owned(),
        }
    }

    fn name(&self) -> String {
        let mut name = String::new();
        if !self.registry.is_empty() {
            name += &self.registry;
            name.push('/');
        }
        name += &self.repository;
        for (mark, part) in [(':', &self.tag), ('@', &self.digest)] {
            if !part.is_empty() {
                name.push(mark);
                name += part;
            }
        }
        name
    }
}

/// The image's name with `overrider` applied.
///
/// # Errors
/// What is wrong, in words, when there is no such name or the value does not fit.
pub(super) fn overridden(name: &str, overrider: &ImageOverrider) -> Result<String, String> {
    let mut image = Image::parse(name);
    let value = overrider.value.as_deref().unwrap_or_default();
    if value.is_empty() && overrider.operator != OverriderOperator::Remove {
        return Err("an image overrider that adds or replaces needs a value".to_owned());
    }
    let part = match overrider.component {
        ImageComponent::Registry => &mut image.registry,
        ImageComponent::Repository => &mut image.repository,
        ImageComponent::Tag => return tag(image, overrider.operator, value),
    };
    apply(part, overrider.operator, value);
    if image.repository.is_empty() {
        return Err(format!("image {name:?} would have no repository"));
    }
    Ok(image.name())
}

fn apply(part: &mut String, operator: OverriderOperator, value: &str) {
    match operator {
        OverriderOperator::Add => part.push_str(value),
        OverriderOperator::Replace => value.clone_into(part),
        OverriderOperator::Remove => part.clear(),
    }
}

/// A tag or a digest: the one takes the place of the other.
fn tag(mut image: Image, operator: OverriderOperator, value: &str) -> Result<String, String> {
    let mut part = match image.tag.is_empty() {
        true => image.digest.clone(),
        false => image.tag.clone(),
    };
    apply(&mut part, operator, value);
    let digest = part.strip_prefix('@').unwrap_or(&part);
    (image.tag, image.digest) = if part.is_empty() {
        // What has a tag and a digest keeps the digest.
        match image.tag.is_empty() {
            true => (String::new(), String::new()),
            false => (String::new(), image.digest),
        }
    } else if is_tag(&part) {
        (part, String::new())
    } else if is_digest(digest) {
        (String::new(), digest.to_owned())
    } else {
        return Err(format!("{part:?} is neither a tag nor a digest"));
    };
    Ok(image.name())
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && hex.len() >= 32
            && hex.chars().all(|c| c.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ImageComponent::{Registry, Repository, Tag};
    use OverriderOperator::{Add, Remove, Replace};

    const DIGEST: &str = "sha256:50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c";

    fn with(
        name: &str,
        component: ImageComponent,
        operator: OverriderOperator,
        value: &str,
    ) -> Result<String, String> {
        let overrider = ImageOverrider {
            predicate: None,
            component,
            operator,
            value: Some(value.to_owned()),
        };
        overridden(name, &overrider)
    }

    #[test]
    fn names_come_apart_and_together() {
        for name in [
            "nginx",
            "nginx:1.25-alpine",
            "library/nginx",
            "localhost/nginx:a",
            "registry.example:5000/a/b",
            "registry.example:5000/a/b:v1",
            &format!("quay.io/a/b@{DIGEST}"),
            &format!("quay.io/a/b:v1@{DIGEST}"),
        ] {
            assert_eq!(Image::parse(name).name(), name);
        }
        let image = Image::parse("registry.example:5000/a/b:v1");
        assert_eq!(
            (image.registry.as_str(), image.repository.as_str()),
            ("registry.example:5000", "a/b")
        );
        assert_eq!(Image::parse("library/nginx").registry, "");
    }

    #[test]
    fn each_part_is_changed() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(with("nginx:1", Registry, Replace, "r.io"), ok("r.io/nginx:1"));
        assert_eq!(
            with("r.io/nginx:1", Registry, Add, ":5000"),
            ok("r.io:5000/nginx:1")
        );
        assert_eq!(with("r.io/nginx:1", Registry, Remove, ""), ok("nginx:1"));
        assert_eq!(with("r.io/a/b:1", Repository, Replace, "c"), ok("r.io/c:1"));
        assert_eq!(with("a/b:1", Repository, Add, "-arm"), ok("a/b-arm:1"));
        assert_eq!(with("a/b:1", Tag, Replace, "2"), ok("a/b:2"));
        assert_eq!(with("a/b", Tag, Replace, "2"), ok("a/b:2"));
        assert_eq!(with("a/b:1", Tag, Add, "-arm"), ok("a/b:1-arm"));
        assert_eq!(with("a/b:1", Tag, Remove, ""), ok("a/b"));
        assert_eq!(with("a/b:1", Tag, Replace, DIGEST), Ok(format!("a/b@{DIGEST}")));
        assert_eq!(
            with("a/b:1", Tag, Replace, &format!("@{DIGEST}")),
            Ok(format!("a/b@{DIGEST}"))
        );
        assert_eq!(with(&format!("a/b@{DIGEST}"), Tag, Replace, "v1"), ok("a/b:v1"));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert!(
            with("a/b:1", Tag, Replace, "no tag")
                .unwrap_err()
                .contains("neither")
        );
        assert!(with("a/b:1", Tag, Add, "").unwrap_err().contains("value"));
        assert!(
            with("r.io/b:1", Repository, Remove, "")
                .unwrap_err()
                .contains("no repository")
        );
    }
}
