//! How much work rules may be. The library has no limit of its own, so every comprehension (`all`, `map` and the others) is
//! rewritten to ask before each step whether it may go on.

use std::sync::atomic::{AtomicU64, Ordering};

use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, operators};
use kube_cel::cel::context::VariableResolver;
use kube_cel::cel::{IdedExpr, Value as Cel};
use kube_cel::{CompilationResult, CompiledSchema};

/// Most steps of all rules asked about one object: well below a second.
pub(super) const STEPS_MAX: u64 = 500_000;

/// A step that makes a list longer copies the list: it counts once more for so many elements.
const ELEMENTS_PER_STEP: u64 = 32;

/// Longest rule, bytes.
pub(super) const RULE_MAX_BYTES: usize = 16 * 1024;
/// Deepest nesting of brackets in a rule, and the most signs before one operand.
const NESTING_MAX: usize = 64;
/// Most operators and selections of a rule: each may be a level of its expression.
const OPERATORS_MAX: usize = 512;
/// Deepest expression.
const DEPTH_MAX: usize = OPERATORS_MAX + 2 * NESTING_MAX;

// No rule can write these names.
const STEP: &str = "@step";
const GROWING: &str = "@growing";

/// The expressions of a schema's rules, in its shape.
#[derive(Default)]
pub(super) struct Metered {
    /// By the place of the rule; `None` for one that was refused.
    pub(super) rules: Vec<Option<MeteredRule>>,
    properties: std::collections::BTreeMap<String, Metered>,
    items: Option<Box<Metered>>,
    additional: Option<Box<Metered>>,
}

/// A rule and the expression of its message.
pub(super) struct MeteredRule {
    pub(super) rule: IdedExpr,
    pub(super) message: Option<IdedExpr>,
}

impl Metered {
    /// As deep as the schema, which is bounded.
    pub(super) fn new(schema: &CompiledSchema) -> Metered {
        let below = |schema: &Option<Box<CompiledSchema>>| {
            let schema = schema.as_deref()?;
            Some(Box::new(Metered::new(schema)))
        };
        let rules = schema.validations.iter();
        let properties = schema.properties.iter();
        Metered {
            rules: rules
                .map(|rule| Some(MeteredRule::new(rule.as_ref().ok()?)))
                .collect(),
            properties: properties
                .map(|(name, schema)| (name.clone(), Metered::new(schema)))
                .collect(),
            items: below(&schema.items),
            additional: below(&schema.additional_properties),
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<&Metered> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    pub(super) fn items(&self) -> Option<&Metered> {
        self.items.as_deref()
    }
}

impl MeteredRule {
    fn new(compiled: &CompilationResult) -> MeteredRule {
        let metered = |expression: &IdedExpr| {
            let mut expression = expression.clone();
            meter(&mut expression);
            expression
        };
        MeteredRule {
            rule: metered(compiled.program.expression()),
            message: compiled
                .message_program
                .as_ref()
                .map(|program| metered(program.expression())),
        }
    }
}

/// What is wrong with the text of a rule before it is parsed: the parser goes as deep as the text. What stands in quotes
/// counts like the rest.
pub(super) fn check_text(text: &str) -> Result<(), &'static str> {
    if text.len() > RULE_MAX_BYTES {
        return Err("it is longer than 16384 bytes");
    }
    let (mut open, mut signs, mut operators) = (0_usize, 0, 0);
    for byte in text.bytes() {
        signs = match byte {
            b'!' | b'-' => signs + 1,
            byte if byte.is_ascii_whitespace() => signs,
            _ => 0,
        };
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'.' | b'<' | b'>' | b'=' | b'?' | b'&' | b'|' | b'!' => {
                operators += 1;
            }
            _ => {}
        }
        if open > NESTING_MAX || signs > NESTING_MAX {
            return Err("it is nested too deeply");
        }
        if operators > OPERATORS_MAX {
            return Err("it has too many operators");
        }
    }
    Ok(())
}

/// What is wrong with a rule that was parsed.
pub(super) fn check_expression(expression: &IdedExpr) -> Result<(), &'static str> {
    let mut below = vec![(expression, 0)];
    while let Some((expression, depth)) = below.pop() {
        if depth > DEPTH_MAX {
            return Err("it is nested too deeply");
        }
        if matches!(expression.expr, Expr::Struct(_) | Expr::Unspecified) {
            return Err("messages of types are not supported");
        }
        below.extend(parts(&expression.expr).into_iter().map(|part| (part, depth + 1)));
    }
    Ok(())
}

fn parts(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        Expr::Call(call) => call.target.iter().map(AsRef::as_ref).chain(&call.args).collect(),
        Expr::Comprehension(loops) => {
            let ComprehensionExpr {
                iter_range,
                accu_init,
                loop_cond,
                loop_step,
                result,
                ..
            } = loops.as_ref();
            vec![iter_range, accu_init, loop_cond, loop_step, result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::StructField(field) => vec![&field.value],
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            });
            entries.flatten().collect()
        }
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

/// As deep as the expression, see [`check_expression`].
fn meter(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                meter(target);
            }
            call.args.iter_mut().for_each(meter);
        }
        Expr::Comprehension(loops) => {
            let loops = loops.as_mut();
            let grows = matches!(loops.accu_init.expr, Expr::List(_) | Expr::Map(_));
            for part in [
                &mut loops.iter_range,
                &mut loops.accu_init,
                &mut loops.loop_cond,
                &mut loops.loop_step,
                &mut loops.result,
            ] {
                meter(part);
            }
            let step = IdedExpr {
                id: 0,
                expr: Expr::Ident(if grows { GROWING } else { STEP }.to_owned()),
            };
            let condition = std::mem::take(&mut loops.loop_cond);
            loops.loop_cond.expr = Expr::Call(CallExpr {
                func_name: operators::LOGICAL_AND.to_owned(),
                target: None,
                args: vec![step, condition],
            });
        }
        Expr::List(list) => list.elements.iter_mut().for_each(meter),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                match &mut entry.expr {
                    EntryExpr::StructField(field) => meter(&mut field.value),
                    EntryExpr::MapEntry(entry) => {
                        meter(&mut entry.key);
                        meter(&mut entry.value);
                    }
                }
            }
        }
        Expr::Select(select) => meter(&mut select.operand),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// Counts the steps of the rules that are asked about one object.
#[derive(Default)]
pub(super) struct Meter {
    steps: AtomicU64,
    /// Steps of the present rule that made a list longer.
    grown: AtomicU64,
}

impl Meter {
    /// A rule begins.
    pub(super) fn begin(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.grown.store(0, Ordering::Relaxed);
    }

    /// Whether the rules went too far: what they said since then means nothing.
    pub(super) fn is_spent(&self) -> bool {
        self.steps.load(Ordering::Relaxed) > STEPS_MAX
    }
}

impl VariableResolver for Meter {
    fn resolve(&self, name: &str) -> Option<Cel> {
        let costs = match name {
            STEP => 1,
            GROWING => 1 + self.grown.fetch_add(1, Ordering::Relaxed) / ELEMENTS_PER_STEP,
            _ => return None,
        };
        self.steps.fetch_add(costs, Ordering::Relaxed);
        Some(Cel::Bool(!self.is_spent()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_the_parser_would_not_survive() {
        assert_eq!(check_text("self.a.all(x, x.b == '((((' && !x.c)"), Ok(()));
        for (text, why) in [
            ("(".repeat(100_000), "it is longer than 16384 bytes"),
            ("(".repeat(100), "it is nested too deeply"),
            ("! ".repeat(100) + "true", "it is nested too deeply"),
            ("1".to_owned() + &"+1".repeat(1000), "it has too many operators"),
            (
                "self".to_owned() + &".a".repeat(1000),
                "it has too many operators",
            ),
        ] {
            assert_eq!(check_text(&text), Err(why));
        }
    }
}
