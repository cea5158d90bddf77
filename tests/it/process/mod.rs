//! The binary under signals and hostile requests: what was acknowledged is kept, whatever ends the process.

mod at_rest;
mod crash;
mod hostile;
mod load;
mod nodes;
mod power_cut;
mod terminate;
