//! How deep a query can nest. Planning copies, prints and drops expressions by recursion, so a chain of operators
//! costs stack, and time by its square; nested parentheses the parser limits itself.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Most operators in a query. A thousand conditions take about 5 MiB of stack in a debug build.
pub(crate) const OPERATORS_MAX: usize = 1000;

/// Number of operators in `query`, of those words and signs that nest what stands before or after them.
/// What cannot be split into words has none: the parser will say so.
pub(crate) fn operators(query: &str) -> usize {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, query).tokenize() else {
        return 0;
    };
    tokens.iter().filter(|token| nests(token)).count()
}

fn nests(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::BETWEEN
                | Keyword::AT
                | Keyword::DIV
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::FROM
        ),
        Token::EOF | Token::Number(..) | Token::Whitespace(_) | Token::SemiColon | Token::Period => false,
        Token::Comma | Token::LParen | Token::RParen => false,
        token => !is_text(token),
    }
}

fn is_text(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::DollarQuotedString(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nests_is_counted_and_lists_are_not() {
        for (query, count) in [
            ("SELECT a, b FROM t WHERE a IN ('x', 'y', 'z', 1, 2.5)", 2),
            ("SELECT 1+1+1", 2),
            ("SELECT 1 UNION ALL SELECT 1", 1),
            ("SELECT a FROM t WHERE a = 1 AND NOT b <> 'x' OR c IS NULL", 7),
            ("SELECT 'unfinished", 0),
        ] {
            assert_eq!(operators(query), count, "{query}");
        }
    }
}
