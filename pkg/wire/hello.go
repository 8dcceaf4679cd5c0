package wire

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Range of protocol versions that this program speaks.
const (
	VersionMin = 1
	VersionMax = 5
	// VersionUrgent is the first with an urgent stream on QUIC.
	VersionUrgent = 2
	// VersionBeside is the first with an urgent connection beside one over TCP.
	VersionBeside = 3
	// VersionTwin is the first with a second one of either.
	VersionTwin = 4
	// VersionLarge is the first whose sealed records may hold more than buffer.Plain.
	VersionLarge = 5
)

// Limits of the handshake's messages, in bytes.
const (
	HelloHeaderSize = 8    // magic, type, reserved byte, length
	MaxHelloBody    = 1024 // what the length may announce
	MaxName         = 64   // a link's or a cloud's name
	MaxText         = 512  // a refusal's reason
)

// MessageKind is the type byte of a handshake message.
type MessageKind uint8

// Handshake messages.
const (
	KindHello   MessageKind = 1
	KindWelcome MessageKind = 2
)

// Hello is the edge's first and only message of the handshake: which session
// this connection wants to join, as which link (PROTOCOL.md "Handshake").
type Hello struct {
	VersionMin uint16 // lowest and
	VersionMax uint16 // highest protocol version that the edge speaks
	Session    [16]byte
	Resume     bool   // the edge knows Session's secret already; false asks for a new session
	Link       uint16 // see LinkIndex
	Name       string // the link's name, 1 to MaxName bytes of printable UTF-8
	// Beside is the token of the TCP connection whose urgent connection this is;
	// zero: it is a connection of the link by itself.
	Beside [16]byte
	Twin   bool // with Beside: it is the second of that connection's two
}

// Status is the cloud's answer to a Hello.
type Status uint8

// Answers. Every one but StatusOK is a refusal; receivers treat values that
// they do not know as refusals too.
const (
	StatusOK          Status = 0
	StatusVersion     Status = 1 // no common protocol version
	StatusUnknownEdge Status = 2 // the edge's key is not configured
	StatusBadLink     Status = 3 // the link's index or name is not acceptable
	StatusNoSession   Status = 4 // the session to resume is unknown or has ended
	StatusBusy        Status = 5 // a budget is spent; try again later
	StatusStopping    Status = 6 // the agent is stopping
	StatusMalformed   Status = 7 // the Hello could not be decoded
	StatusInternal    Status = 8 // a fault of the cloud, in its log
)

// String returns the status as logs show it.
func (s Status) String() string {
	names := [...]string{"ok", "version mismatch", "unknown edge", "bad link", "no such session", "busy", "stopping", "malformed hello", "internal fault"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Welcome is the cloud's answer. With a refusal Version, Resumed and Secret
// are zero.
type Welcome struct {
	Status     Status
	Version    uint16 // the version both ends speak from here on
	VersionMin uint16 // lowest and
	VersionMax uint16 // highest protocol version that the cloud speaks
	Resumed    bool   // the session existed; its flows go on
	Secret     [32]byte
	Name       string // the cloud's name, 0 to MaxName bytes of printable UTF-8
	Text       string // why it was refused, 0 to MaxText bytes of printable UTF-8
}

// ErrHello is wrapped by every error of a handshake message's encoder or
// decoder.
var ErrHello = errors.New("malformed handshake message")

const (
	helloMagic  = "hwsr"
	flagResume  = 0x01 // Hello
	flagBeside  = 0x02 // Hello: the token follows the name
	flagTwin    = 0x04 // Hello, with flagBeside
	flagResumed = 0x01 // Welcome
)

// HelloLength reads the header of a handshake message, HelloHeaderSize bytes,
// and returns the length of the body that follows it, at most MaxHelloBody.
func HelloLength(header []byte, want MessageKind) (int, error) {
	if len(header) != HelloHeaderSize {
		return 0, fmt.Errorf("%w: header of %d bytes", ErrHello, len(header))
	}
	if string(header[:4]) != helloMagic {
		return 0, fmt.Errorf("%w: the peer does not speak hawser's protocol", ErrHello)
	}
	if MessageKind(header[4]) != want {
		return 0, fmt.Errorf("%w: type %d, want %d", ErrHello, header[4], want)
	}
	n := int(be.Uint16(header[6:]))
	if n > MaxHelloBody {
		return 0, fmt.Errorf("%w: %d bytes, at most %d allowed", ErrHello, n, MaxHelloBody)
	}
	return n, nil
}

// AppendHello appends the whole message, header included.
func AppendHello(b []byte, h Hello) ([]byte, error) {
	if err := h.check(); err != nil {
		return b, err
	}
	b, start := appendHeader(b, KindHello)
	b = be.AppendUint16(b, h.VersionMin)
	b = be.AppendUint16(b, h.VersionMax)
	b = append(b, h.Session[:]...)
	beside := h.Beside != [16]byte{}
	b = append(b, flag(h.Resume, flagResume)|flag(beside, flagBeside)|flag(beside && h.Twin, flagTwin))
	b = be.AppendUint16(b, h.Link)
	b = append(append(b, byte(len(h.Name))), h.Name...)
	if beside {
		b = append(b, h.Beside[:]...)
	}
	return finish(b, start), nil
}

// DecodeHello decodes the body of a Hello. Bytes behind the fields that it
// knows and flags that it does not know are ignored: a later version may
// append some and must still be able to learn that the versions differ.
func DecodeHello(body []byte) (Hello, error) {
	r := reader{b: body}
	h := Hello{VersionMin: r.u16(), VersionMax: r.u16(), Session: [16]byte(r.take(16))}
	flags := r.u8()
	h.Resume = flags&flagResume != 0
	h.Link = r.u16()
	h.Name = string(r.long(int(r.u8())))
	if flags&flagBeside != 0 {
		h.Beside, h.Twin = [16]byte(r.take(16)), flags&flagTwin != 0
	}
	if r.short {
		return Hello{}, fmt.Errorf("%w: hello is cut short", ErrHello)
	}
	if flags&flagBeside != 0 && h.Beside == [16]byte{} {
		return Hello{}, fmt.Errorf("%w: an urgent connection beside nothing", ErrHello)
	}
	return h, h.check()
}

func (h Hello) check() error {
	if h.VersionMin == 0 || h.VersionMin > h.VersionMax {
		return fmt.Errorf("%w: versions %d to %d", ErrHello, h.VersionMin, h.VersionMax)
	}
	if h.Name == "" {
		return fmt.Errorf("%w: link without a name", ErrHello)
	}
	return checkString("link name", h.Name, MaxName)
}

// AppendWelcome appends the whole message, header included.
func AppendWelcome(b []byte, w Welcome) ([]byte, error) {
	if err := w.check(); err != nil {
		return b, err
	}
	b, start := appendHeader(b, KindWelcome)
	b = append(b, byte(w.Status))
	b = be.AppendUint16(b, w.Version)
	b = be.AppendUint16(b, w.VersionMin)
	b = be.AppendUint16(b, w.VersionMax)
	b = append(b, flag(w.Resumed, flagResumed))
	b = append(b, w.Secret[:]...)
	b = append(append(b, byte(len(w.Name))), w.Name...)
	b = append(be.AppendUint16(b, uint16(len(w.Text))), w.Text...)
	return finish(b, start), nil
}

// DecodeWelcome decodes the body of a Welcome; see DecodeHello for what it
// ignores.
func DecodeWelcome(body []byte) (Welcome, error) {
	r := reader{b: body}
	w := Welcome{Status: Status(r.u8()), Version: r.u16(), VersionMin: r.u16(), VersionMax: r.u16()}
	w.Resumed = r.u8()&flagResumed != 0
	copy(w.Secret[:], r.long(len(w.Secret)))
	w.Name = string(r.long(int(r.u8())))
	w.Text = string(r.long(int(r.u16())))
	if r.short {
		return Welcome{}, fmt.Errorf("%w: welcome is cut short", ErrHello)
	}
	return w, w.check()
}

func (w Welcome) check() error {
	if w.VersionMin == 0 || w.VersionMin > w.VersionMax {
		return fmt.Errorf("%w: versions %d to %d", ErrHello, w.VersionMin, w.VersionMax)
	}
	switch {
	case w.Status == StatusOK && (w.Version < w.VersionMin || w.Version > w.VersionMax):
		return fmt.Errorf("%w: version %d chosen out of %d to %d", ErrHello, w.Version, w.VersionMin, w.VersionMax)
	case w.Status != StatusOK && (w.Version != 0 || w.Resumed || w.Secret != [32]byte{}):
		return fmt.Errorf("%w: a refusal with a session", ErrHello)
	}
	if err := checkString("cloud name", w.Name, MaxName); err != nil {
		return err
	}
	return checkString("text", w.Text, MaxText)
}

// ChooseVersion returns the highest version that is in both ranges.
func ChooseVersion(h Hello, lowest, highest uint16) (uint16, bool) {
	v := min(h.VersionMax, highest)
	return v, v >= max(h.VersionMin, lowest)
}

// checkString admits what may be printed in a log line: no control characters,
// no line breaks.
func checkString(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: %s of %d bytes, at most %d allowed", ErrHello, what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: %s is not UTF-8", ErrHello, what)
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("%w: %s holds the unprintable character %U", ErrHello, what, c)
		}
	}
	return nil
}

func appendHeader(b []byte, kind MessageKind) ([]byte, int) {
	b = append(b, helloMagic...)
	b = append(b, byte(kind), 0, 0, 0)
	return b, len(b)
}

// finish enters the length of what was appended since start.
func finish(b []byte, start int) []byte {
	be.PutUint16(b[start-2:], uint16(len(b)-start))
	return b
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

// long is take for fields longer than its block of zeros.
func (r *reader) long(n int) []byte {
	if len(r.b) < n {
		r.short, r.b = true, nil
		return nil
	}
	return r.take(n)
}
