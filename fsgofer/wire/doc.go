// Package wire is the protocol between the sentry and the gofer: messages over a SOCK_SEQPACKET unix socket pair, file
// descriptors as SCM_RIGHTS.
//
// A message is one datagram: a header of eight bytes (tag, operation, errno; little-endian) and a body whose layout is
// fixed by the one code method of its type, which both encodes and decodes. Many requests may be in flight; replies
// come in any order and carry the tag of their request. OpClose alone has no reply.
//
// The gofer hands out handles for directories and for files that have lost their name. Every other file is named by a
// Ref: a directory handle, a path of one or more names below it, and the inode number that the client believes it has.
//
// One request does much: a walk of several names, with a descriptor of what it ends at; a listing with attributes, of a directory and of those
// below; descriptors of a file and of those that will be opened next.
//
// Neither side trusts the other's bytes: each length is checked against the datagram and its own bound, names are
// checked to be single components, and what follows a message is an error. A broken message ends the connection.
//
// Locks: Client.mu guards the table of calls; it is a leaf.
package wire
