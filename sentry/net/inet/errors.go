package inet

import (
	"reflect"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// errnos are Linux's for netstack's errors; EINVAL for those that are not here.
var errnos = map[reflect.Type]unix.Errno{
	reflect.TypeFor[*tcpip.ErrWouldBlock]():                unix.EWOULDBLOCK,
	reflect.TypeFor[*tcpip.ErrConnectStarted]():            unix.EINPROGRESS,
	reflect.TypeFor[*tcpip.ErrAlreadyConnecting]():         unix.EALREADY,
	reflect.TypeFor[*tcpip.ErrAlreadyConnected]():          unix.EISCONN,
	reflect.TypeFor[*tcpip.ErrConnectionRefused]():         unix.ECONNREFUSED,
	reflect.TypeFor[*tcpip.ErrConnectionReset]():           unix.ECONNRESET,
	reflect.TypeFor[*tcpip.ErrConnectionAborted]():         unix.ECONNABORTED,
	reflect.TypeFor[*tcpip.ErrClosedForSend]():             unix.EPIPE,
	reflect.TypeFor[*tcpip.ErrAborted]():                   unix.EPIPE,
	reflect.TypeFor[*tcpip.ErrNotConnected]():              unix.ENOTCONN,
	reflect.TypeFor[*tcpip.ErrTimeout]():                   unix.ETIMEDOUT,
	reflect.TypeFor[*tcpip.ErrBadBuffer]():                 unix.EFAULT,
	reflect.TypeFor[*tcpip.ErrHostUnreachable]():           unix.EHOSTUNREACH,
	reflect.TypeFor[*tcpip.ErrNetworkUnreachable]():        unix.ENETUNREACH,
	reflect.TypeFor[*tcpip.ErrHostDown]():                  unix.EHOSTDOWN,
	reflect.TypeFor[*tcpip.ErrNoNet]():                     unix.ENONET,
	reflect.TypeFor[*tcpip.ErrBadLocalAddress]():           unix.EADDRNOTAVAIL,
	reflect.TypeFor[*tcpip.ErrPortInUse]():                 unix.EADDRINUSE,
	reflect.TypeFor[*tcpip.ErrNoPortAvailable]():           unix.EADDRINUSE,
	reflect.TypeFor[*tcpip.ErrDestinationRequired]():       unix.EDESTADDRREQ,
	reflect.TypeFor[*tcpip.ErrMessageTooLong]():            unix.EMSGSIZE,
	reflect.TypeFor[*tcpip.ErrNoBufferSpace]():             unix.ENOBUFS,
	reflect.TypeFor[*tcpip.ErrBroadcastDisabled]():         unix.EACCES,
	reflect.TypeFor[*tcpip.ErrNotPermitted]():              unix.EPERM,
	reflect.TypeFor[*tcpip.ErrNotSupported]():              unix.EOPNOTSUPP,
	reflect.TypeFor[*tcpip.ErrAddressFamilyNotSupported](): unix.EAFNOSUPPORT,
	reflect.TypeFor[*tcpip.ErrUnknownProtocolOption]():     unix.ENOPROTOOPT,
	reflect.TypeFor[*tcpip.ErrUnknownDevice]():             unix.ENODEV,
	reflect.TypeFor[*tcpip.ErrUnknownNICID]():              unix.ENODEV,
	reflect.TypeFor[*tcpip.ErrNoSuchFile]():                unix.ENOENT,
	reflect.TypeFor[*tcpip.ErrDuplicateAddress]():          unix.EEXIST,
	reflect.TypeFor[*tcpip.ErrEndpointBusy]():              unix.EBUSY,
	reflect.TypeFor[*tcpip.ErrQueueSizeNotSupported]():     unix.ENOTTY,
}

// errno turns netstack's error into Linux's. Callers handle those for which the call matters.
func errno(err tcpip.Error) error {
	if err == nil {
		return nil
	}
	if e, ok := errnos[reflect.TypeOf(err)]; ok {
		return e
	}
	return unix.EINVAL
}
