package link

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"hawser/pkg/wire"
)

// alpn is the protocol name of hawser's links in TLS (RFC 7301).
const alpn = "hawser/1"

// secured is an authenticated connection before HELLO and WELCOME.
type secured struct {
	pipe   pipe
	stream deadlineStream // carries the handshake's messages
	peer   [32]byte
	state  tls.ConnectionState
}

type deadlineStream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// past is a deadline that ends every operation at once.
func past() time.Time { return time.Unix(1, 0) }

// interrupt makes the operation under way fail.
func (s *secured) interrupt() { _ = s.stream.SetDeadline(past()) }

// during runs fn, bounded by ctx.
func (s *secured) during(ctx context.Context, fn func() error) error {
	stop := context.AfterFunc(ctx, s.interrupt)
	err := fn()
	if !stop() && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return s.stream.SetDeadline(time.Time{})
}

// Pinned keys ---------------------------------------------------------------

// verdict checks the peer's certificate during TLS and keeps what it found:
// the TLS library's own error would bury the reason.
type verdict struct {
	peerKey func(raw [][]byte) ([32]byte, error)
	want    *[32]byte // the only acceptable key; nil accepts every key that proves itself
	key     [32]byte
	err     error
}

// verify has the signature of tls.Config.VerifyConnection. TLS checks that
// the peer holds the certificate's private key; chains and names mean nothing
// here.
func (v *verdict) verify(state tls.ConnectionState) error {
	raw := make([][]byte, len(state.PeerCertificates))
	for i, c := range state.PeerCertificates {
		raw[i] = c.Raw
	}
	v.key, v.err = v.peerKey(raw)
	if v.err != nil {
		v.err = &strangerError{fmt.Errorf("%w: %w", ErrPeerKey, v.err)}
	} else if v.want != nil && v.key != *v.want {
		v.err = &strangerError{fmt.Errorf("the cloud shows key %s, cloud.key is %s: %w", KeyText(v.key), KeyText(*v.want), ErrPeerKey)}
	}
	return v.err
}

// strangerError is that somebody answers who is not the peer: the peer has another key than
// is believed, or it is somebody on the way, as a firewall that looks into TLS.
type strangerError struct{ error }

func (e *strangerError) Unwrap() error { return e.error }

// config returns the TLS configuration of one handshake.
func (v *verdict) config(certificate tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{certificate},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // the key is pinned instead, see verify
		VerifyConnection:       v.verify,
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true, // nothing may follow the server's Finished but WELCOME
	}
}

// explain turns the error of a TLS handshake into one line: our own verdict,
// the peer's about our key, or what the network did. rejected is how the peer
// says that it does not accept our certificate.
func (v *verdict) explain(err error, rejected bool, party string) error {
	switch {
	case v.err != nil:
		return v.err
	case rejected:
		return fmt.Errorf("%s: %w", party, ErrPeerKey)
	}
	return plainError(err)
}

// What a rejected certificate means at either end.
const (
	cloudRejects = "the cloud does not accept this edge's certificate"
	edgeRejects  = "the edge expects another cloud key than this one's: compare cloud.key in its configuration with this cloud's public key"
)

// Messages --------------------------------------------------------------------

// readMessage reads one handshake message and not a byte more.
func readMessage(r io.Reader, kind wire.MessageKind) ([]byte, error) {
	msg := make([]byte, wire.HelloHeaderSize, wire.HelloHeaderSize+wire.MaxHelloBody)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, err
	}
	n, err := wire.HelloLength(msg, kind)
	if err != nil {
		return nil, err
	}
	msg = msg[:wire.HelloHeaderSize+n]
	_, err = io.ReadFull(r, msg[wire.HelloHeaderSize:])
	return msg, err
}

// sayHello is the edge's part: it sends HELLO and returns the WELCOME, which
// is not a refusal, and the hash of both messages.
func (s *secured) sayHello(h wire.Hello) (wire.Welcome, []byte, error) {
	hello, err := wire.AppendHello(nil, h)
	if err != nil {
		return wire.Welcome{}, nil, err
	}
	if _, err := s.stream.Write(hello); err != nil {
		return wire.Welcome{}, nil, err
	}
	welcome, err := readMessage(s.stream, wire.KindWelcome)
	if err != nil {
		return wire.Welcome{}, nil, err
	}
	w, err := wire.DecodeWelcome(welcome[wire.HelloHeaderSize:])
	if err != nil {
		return wire.Welcome{}, nil, err
	}
	if w.Status != wire.StatusOK {
		return w, nil, &Refusal{Status: w.Status, Text: w.Text}
	}
	if w.Version < h.VersionMin || w.Version > h.VersionMax {
		return w, nil, fmt.Errorf("%w: cloud chose %d, edge speaks %d to %d", ErrVersion, w.Version, h.VersionMin, h.VersionMax)
	}
	return w, transcript(hello, welcome), nil
}

// hearHello is the first half of the cloud's part.
func (s *secured) hearHello() (h wire.Hello, msg []byte, err error) {
	msg, err = readMessage(s.stream, wire.KindHello)
	if err != nil {
		return h, nil, err
	}
	h, err = wire.DecodeHello(msg[wire.HelloHeaderSize:])
	return h, msg, err
}

// sayWelcome is the second half; it returns the hash of both messages.
func (s *secured) sayWelcome(hello []byte, w wire.Welcome) ([]byte, error) {
	welcome, err := wire.AppendWelcome(nil, w)
	if err != nil {
		return nil, err
	}
	if _, err := s.stream.Write(welcome); err != nil {
		return nil, err
	}
	return transcript(hello, welcome), nil
}

// transcript binds the record keys to what both ends said: whoever could
// change a HELLO or WELCOME would be left without the keys.
func transcript(hello, welcome []byte) []byte {
	h := sha256.New()
	h.Write(hello)
	h.Write(welcome)
	return h.Sum(nil)
}

// connection makes the connection that the handshake has agreed upon; edge says
// which end we are.
func (s *secured) connection(transcript []byte, edge bool, info Info, counters *Counters) (*Conn, error) {
	bulk, err := s.keys(transcript, edge, bulkLabels)
	if err != nil {
		return nil, err
	}
	if info.Transport != QUIC || info.Version < wire.VersionUrgent {
		c, err := newConn(s.pipe, bulk, nil, info, counters)
		if err != nil || !info.beside() {
			return c, err
		}
		token, err := s.token(transcript)
		if err != nil {
			return nil, err
		}
		c.berth = newBerth(token)
		if info.Version >= wire.VersionTwin {
			c.twinBerth = newBerth(token)
		}
		return c, nil
	}
	urgent, err := s.keys(transcript, edge, urgentLabels)
	if err != nil {
		return nil, err
	}
	if info.Version < wire.VersionTwin {
		return newConn(s.pipe, bulk, &urgent, info, counters)
	}
	twin, err := s.keys(transcript, edge, twinLabels)
	if err != nil {
		return nil, err
	}
	c, err := newConn(s.pipe, bulk, &urgent, info, counters)
	if err == nil {
		c.twin, err = c.beside(&twin)
	}
	return c, err
}

// keys derives the two directions' keys of a strand from TLS.
func (s *secured) keys(transcript []byte, edge bool, l labels) (keys, error) {
	up, err := s.direction(l.up, transcript)
	if err != nil {
		return keys{}, err
	}
	down, err := s.direction(l.down, transcript)
	if err != nil {
		return keys{}, err
	}
	if edge {
		return keys{out: up, in: down}, nil
	}
	return keys{out: down, in: up}, nil
}

func (s *secured) direction(label string, transcript []byte) (*sealer, error) {
	secret, err := s.state.ExportKeyingMaterial(label, transcript, secretSize)
	if err != nil {
		return nil, fmt.Errorf("link keys: %w", err)
	}
	return newSealer(secret, RekeyRecords)
}

// refusalOf turns an Admitter's error into the refusal that is sent.
func refusalOf(err error, key [32]byte) *Refusal {
	var r *Refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, ErrUnknownEdge):
		return &Refusal{wire.StatusUnknownEdge, "this edge's key " + KeyText(key) + " is not configured at the cloud"}
	}
	return &Refusal{wire.StatusInternal, "internal fault, see the cloud's log"}
}

// refusedFor is a refusal whose reason the edge is not told in full.
type refusedFor struct {
	told   *Refusal
	reason error
}

func (e *refusedFor) Error() string   { return "refused: " + e.reason.Error() }
func (e *refusedFor) Unwrap() []error { return []error{e.told, e.reason} }
