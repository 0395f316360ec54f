//! Help that belongs to no single command: `ledge help TOPIC`.

use std::fmt::Write as _;

use super::Context;
use crate::error::Quit;
use crate::exit::Code;

/// `ledge help exit-codes`.
pub(crate) fn exit_codes() -> String {
    let mut text = String::from("Exit codes\n\n");
    for code in Code::ALL {
        writeln!(text, "  {}  {}", code.number(), code.meaning()).ok();
    }
    text.push_str(
        "\nWhen `log verify` finds several kinds of damage, the most serious decides: bad hash,\n\
         then gap, then torn tail. A reader that goes away (`| head`) is no error: the code is 0.",
    );
    text
}

/// Prints a topic when it is run like a command.
pub(crate) fn print(context: &mut Context, topic: &str) -> Result<Code, Quit> {
    context.out.text(topic)?;
    context.out.text("\n")?;
    Ok(Code::Yes)
}
