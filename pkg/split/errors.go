package split

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"

	"hawser/pkg/party"
)

// partyError returns the party error that a netstack error stands for.
func partyError(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrWouldBlock, *tcpip.ErrConnectStarted, *tcpip.ErrAlreadyConnecting:
		return party.ErrAgain
	case *tcpip.ErrConnectionRefused:
		return party.ErrRefused
	case *tcpip.ErrTimeout, *tcpip.ErrHostUnreachable, *tcpip.ErrNetworkUnreachable, *tcpip.ErrNoNet, *tcpip.ErrHostDown:
		return party.ErrUnreachable
	case *tcpip.ErrConnectionReset, *tcpip.ErrConnectionAborted, *tcpip.ErrAborted,
		*tcpip.ErrClosedForSend, *tcpip.ErrClosedForReceive, *tcpip.ErrNotConnected:
		return party.ErrReset
	default:
		return fmt.Errorf("%w (%s)", party.ErrReset, err)
	}
}
