//! Opening a connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_modbus::client::{Context, rtu, tcp};
use tokio_modbus::slave::Slave;

use super::address::Address;
use super::serial;

/// A connection being opened.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Context>> + Send + 'a>>;

/// Opens connections: over the network and serial lines in the daemon, in memory in tests.
pub trait Dial: Send + Sync + 'static {
    /// Opens a connection to `address`. On a serial line, waits until nobody has spoken for `quiet`: a late answer
    /// to an earlier request would be taken for the answer to the next.
    fn dial<'a>(&'a self, address: &'a Address, quiet: Duration) -> Dialling<'a>;
}

/// Opens TCP connections and serial lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetDial;

impl Dial for NetDial {
    fn dial<'a>(&'a self, address: &'a Address, quiet: Duration) -> Dialling<'a> {
        Box::pin(async move {
            // The unit is set anew for every request.
            match address {
                Address::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Ok(tcp::attach_slave(stream, Slave::tcp_device()))
                }
                Address::Serial(line) => {
                    let stream = serial::open(line, quiet).await?;
                    Ok(rtu::attach_slave(stream, Slave::broadcast()))
                }
            }
        })
    }
}
