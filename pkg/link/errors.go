package link

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"hawser/pkg/wire"
)

// Errors of a connection; match with errors.Is.
var (
	ErrClosed     = errors.New("connection closed")                          // Close was called here
	ErrPeerClosed = errors.New("peer closed the connection")                 // it ended between two records
	ErrTruncated  = errors.New("connection ended in the middle of a record") // it ended anywhere else
	ErrTampered   = errors.New("record failed authentication")               // forged, changed, repeated or out of order
	ErrRecord     = errors.New("record breaks the size limits")              // a length that no honest peer sends
)

// Errors of making a connection; match with errors.Is.
var (
	ErrPeerKey     = errors.New("wrong key")
	ErrVersion     = errors.New("no common protocol version")
	ErrUnknownEdge = errors.New("unknown edge")
	ErrBadLink     = errors.New("bad link")
	ErrNoSession   = errors.New("no such session")
	ErrBusy        = errors.New("cloud is busy")
	ErrStopping    = errors.New("cloud is stopping")
	// ErrSilent matches os.ErrDeadlineExceeded as well.
	ErrSilent error = silence{}
)

// silence is a peer that did not answer.
type silence struct{}

func (silence) Error() string        { return "no answer in time" }
func (silence) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// Refusal is the cloud's refusal of an authenticated connection, at both ends:
// an Admitter returns one to have it sent, Dial returns what was received.
type Refusal struct {
	Status wire.Status
	Text   string
}

// Error returns the reason in one line.
func (r *Refusal) Error() string {
	if r.Text == "" {
		return "refused: " + r.Status.String()
	}
	return "refused: " + r.Text
}

// Unwrap returns the sentinel that belongs to the status, nil if there is none.
func (r *Refusal) Unwrap() error {
	switch r.Status {
	case wire.StatusVersion:
		return ErrVersion
	case wire.StatusUnknownEdge:
		return ErrUnknownEdge
	case wire.StatusBadLink:
		return ErrBadLink
	case wire.StatusNoSession:
		return ErrNoSession
	case wire.StatusBusy:
		return ErrBusy
	case wire.StatusStopping:
		return ErrStopping
	}
	return nil
}

// Steps of making a connection, as errors name them.
const (
	StepSocket  = "socket"
	StepConnect = "connect"
	StepTLS     = "tls handshake"
	StepHello   = "hello"
	StepWelcome = "welcome"
)

// StepError says with which party and at which step making a connection
// failed.
type StepError struct {
	Link      string // the link's name; at the cloud empty until HELLO was read
	Transport Transport
	Remote    netip.AddrPort
	Step      string
	Err       error
}

// Error returns for example "link lte: tcp 203.0.113.10:7443: connect:
// connection refused".
func (e *StepError) Error() string {
	return fmt.Sprintf("%s: %s: %v", label(e.Link, "", e.Transport, e.Remote), e.Step, e.Err)
}

// Unwrap returns the reason.
func (e *StepError) Unwrap() error { return e.Err }

// Unheard says that the other end was reached, and ended a connection without a word: a cloud
// does that while too many handshakes are under way, and so does what is no cloud.
func Unheard(err error) bool {
	var step *StepError
	return errors.As(err, &step) && step.Step == StepTLS && (errors.Is(err, ErrPeerClosed) || errors.Is(err, syscall.ECONNRESET))
}

// otherError is that who answers by QUIC is no cloud.
type otherError string

func (e otherError) Error() string { return string(e) }

// Other says that who has answered is another program than a cloud: it does not speak TLS, or
// has ended TLS for another reason than our key, as a web server does that knows no hawser.
func Other(err error) bool {
	var op *net.OpError
	var quic otherError
	return errors.As(err, new(tls.RecordHeaderError)) || errors.As(err, &quic) || errors.As(err, &op) && op.Op == "remote error"
}

// attemptsError joins the failures of several transports in one line.
type attemptsError []error

func (e attemptsError) Error() string {
	parts := make([]string, len(e))
	for i, err := range e {
		parts[i] = err.Error()
	}
	return strings.Join(parts, "; ")
}

func (e attemptsError) Unwrap() []error { return e }

// inWords says an error in other words than its own.
type inWords struct {
	text string
	err  error
}

func (e *inWords) Error() string { return e.text }
func (e *inWords) Unwrap() error { return e.err }

// label names a connection in errors: "link lte of train-7: tcp 192.0.2.1:99".
func label(link, peer string, t Transport, remote netip.AddrPort) string {
	where := string(t) + " " + remote.String()
	switch {
	case link == "":
		return where
	case peer == "":
		return "link " + link + ": " + where
	}
	return "link " + link + " of " + peer + ": " + where
}

// KeyText writes a public key as configuration files hold it.
func KeyText(key [32]byte) string { return base64.StdEncoding.EncodeToString(key[:]) }

// plainError strips what a system call's error repeats ("read tcp a->b:") and
// says what the party did in plain words.
func plainError(err error) error {
	var errno syscall.Errno
	err = quicError(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return ErrSilent
	case errors.Is(err, net.ErrClosed):
		return ErrClosed
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrPeerClosed
	}
	return err
}
