//! Expressions, parsed: what they select, and what they compare with.

use std::{collections::BTreeSet, time::Duration};

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{self, Expr, VectorSelector},
};

pub fn parse(text: &str) -> Expr {
    parser::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What stands directly below. The vector of a range selector does not count: it is part of the selector.
pub fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Aggregate(aggregate) => aggregate.param.iter().chain([&aggregate.expr]).map(|child| &**child).collect(),
        Expr::Unary(unary) => vec![&unary.expr],
        Expr::Binary(binary) => vec![&binary.lhs, &binary.rhs],
        Expr::Paren(paren) => vec![&paren.expr],
        Expr::Subquery(subquery) => vec![&subquery.expr],
        Expr::Call(call) => call.args.args.iter().map(|child| &**child).collect(),
        _ => vec![],
    }
}

/// The same, to be changed.
pub fn children_mut(expr: &mut Expr) -> Vec<&mut Expr> {
    match expr {
        Expr::Aggregate(aggregate) => {
            aggregate.param.iter_mut().chain([&mut aggregate.expr]).map(|c| &mut **c).collect()
        }
        Expr::Unary(unary) => vec![&mut unary.expr],
        Expr::Binary(binary) => vec![&mut binary.lhs, &mut binary.rhs],
        Expr::Paren(paren) => vec![&mut paren.expr],
        Expr::Subquery(subquery) => vec![&mut subquery.expr],
        Expr::Call(call) => call.args.args.iter_mut().map(|child| &mut **child).collect(),
        _ => vec![],
    }
}

/// A selector, and where it stands.
#[derive(Debug)]
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<Matcher>,
    pub range: Option<Duration>,
    /// It has an offset.
    pub earlier: bool,
    /// The functions around it, the nearest last.
    pub inside: Vec<&'static str>,
}

impl Selector {
    fn of(selector: &VectorSelector, range: Option<Duration>, inside: &[&'static str]) -> Self {
        let metric = selector.name.clone().expect("every selector names its metric");
        Self {
            metric,
            matchers: selector.matchers.matchers.clone(),
            range,
            earlier: selector.offset.is_some(),
            inside: inside.to_vec(),
        }
    }

    /// Does it match `label=~"value"`?
    pub fn matches(&self, label: &str, value: &str) -> bool {
        let is_regex = |matcher: &Matcher| matches!(matcher.op, MatchOp::Re(_));
        self.matchers.iter().any(|matcher| matcher.name == label && matcher.value == value && is_regex(matcher))
    }
}

pub fn selectors(expr: &Expr) -> Vec<Selector> {
    fn gather(expr: &Expr, inside: &mut Vec<&'static str>, found: &mut Vec<Selector>) {
        match expr {
            Expr::VectorSelector(vector) => found.push(Selector::of(vector, None, inside)),
            Expr::MatrixSelector(matrix) => found.push(Selector::of(&matrix.vs, Some(matrix.range), inside)),
            Expr::Call(call) => inside.push(call.func.name),
            _ => {}
        }
        for child in children(expr) {
            gather(child, inside, found);
        }
        if matches!(expr, Expr::Call(_)) {
            inside.pop();
        }
    }
    let mut found = Vec::new();
    gather(expr, &mut Vec::new(), &mut found);
    found
}

pub fn metrics(expr: &Expr) -> BTreeSet<String> {
    selectors(expr).into_iter().map(|selector| selector.metric).collect()
}

/// Every number that something is compared with.
pub fn limits(expr: &Expr) -> Vec<f64> {
    let own = match expr {
        Expr::Binary(binary) if binary.op.is_comparison_operator() => match &*binary.rhs {
            Expr::NumberLiteral(number) => Some(number.val),
            _ => None,
        },
        _ => None,
    };
    own.into_iter().chain(children(expr).into_iter().flat_map(limits)).collect()
}
