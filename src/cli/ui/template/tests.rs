//! Tests of templates.

#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

#[test]
fn templates_are_filled_in() {
    let value = json!({
        "ID": "abc", "Size": 7, "Names": ["a", "b"],
        "RootFS": {"Layers": ["x", "y"]}, "Labels": {"k": "v"}, "Config": {}, "None": null, "Empty": "",
    });
    let table = [
        ("{{.ID}}", "abc"),
        ("{{ .ID }}\\t{{.Size}}\\n", "abc\t7\n"),
        ("{{.RootFS.Layers}}", "[x y]"),
        (
            "{{.Config.User}}|{{.Config.Env}}|{{.Config.Labels}}",
            "|[]|map[]",
        ),
        (
            "{{index .Config.Labels \"x\"}}|{{json .Config.Cmd}}|{{json .Config.User}}",
            "|null|\"\"",
        ),
        (
            "{{if .Config.Entrypoint}}yes{{else}}no{{end}}{{len .Config.Volumes}}",
            "no0",
        ),
        ("{{json .Names}}", "[\"a\",\"b\"]"),
        ("{{json .}}", &value.to_string()),
        ("{{len .Names}}{{len .None}}", "20"),
        ("{{upper .ID}}{{lower .ID}}", "ABCabc"),
        ("{{join .Names \",\"}}", "a,b"),
        ("{{index .Names 1}}{{index .Labels \"k\"}}", "bv"),
        ("{{range .RootFS.Layers}}<{{.}}>{{end}}", "<x><y>"),
        (
            "{{if .Empty}}no{{else}}yes{{end}}{{if .ID}}!{{end}}",
            "yes!",
        ),
        ("{{.Labels}}", "map[k:v]"),
        ("{{.None.Deeper}}", "<no value>"),
        ("plain", "plain"),
    ];
    for (template, expected) in table {
        let filled = Template::parse(template).unwrap().fill(&value).unwrap();
        assert_eq!(filled, expected, "{template}");
    }
    let message = Template::parse("{{.Nope}}")
        .unwrap()
        .fill(&value)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no field 'Nope', but") && message.contains("RootFS"),
        "{message}"
    );
}

#[test]
fn wrong_templates_are_refused() {
    for text in [
        "{{.A",
        "{{end}}",
        "{{range .A}}",
        "{{if .A}}{{else}}",
        "{{A}}",
        "{{foo .A}}",
        "{{join .A}}",
        "{{.A 1}}",
    ] {
        assert!(Template::parse(text).is_err(), "{text}");
    }
}

#[test]
fn headers_stand_for_fields() {
    let template = Template::parse("{{.ID}}\\t{{.Size}}").unwrap();
    assert_eq!(template.headers(str::to_lowercase), "id\tsize");
}
