// Package devpts has pseudoterminals (pty(7)) with the N_TTY line discipline (termios(3), drivers/tty/n_tty.c), and devpts, the file
// system of their slaves. Each mount of devpts is an instance of its own.
//
// A Pty is both sides: what the master writes goes through the discipline's input (line editing, signals, echo) to the slave's
// readers; what slaves write goes through its output (newlines, tabs) to the master's. The sentry itself can be the master
// (Console): that is how a terminal of the host is passed in.
//
// Job control (controlling terminal, foreground group) is the kernel's: kernel.TTYJob.
//
// Locks: Pty.mu guards a terminal; it is not held while guest memory is copied, waiters are notified or signals are sent.
// Instance.mu (the table of an instance) is taken inside of nothing and holds nothing.
package devpts
