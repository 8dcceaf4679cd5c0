package wire

import (
	"errors"
	"fmt"
)

// Messages and sizes of the stand-alone relay (PROTOCOL.md section 7).
const (
	KindAsk   MessageKind = 3
	KindGrant MessageKind = 4

	MaxServices = 28 // that a gateway grants to one client
	MaxService  = 32 // a service's name, in bytes
	JoinSize    = 46 // of a Join with its tag
	JoinCovered = 30 // of these, what the tag covers
	EndSize     = 20 // of the record that ends a direction, with its tag
)

// Range of versions of the stand-alone relay's protocol that this program
// speaks; they are counted by themselves.
const (
	RelayVersionMin = 1
	RelayVersionMax = 3
	// RelayVersionLarge is the first whose sealed records may hold more than buffer.Plain.
	RelayVersionLarge = 2
	// RelayVersionAgain is the first whose connections carry one flow after another.
	RelayVersionAgain = 3
)

// ErrJoin is wrapped by every error of ParseJoin.
var ErrJoin = errors.New("malformed join")

const joinMagic = "hwsj"

// Ask is what a client says first inside TLS on a control connection.
type Ask struct{ VersionMin, VersionMax uint16 }

// Grant is the gateway's answer. With a refusal Version and Association are
// zero and Services is empty.
type Grant struct {
	Status      Status
	Version     uint16
	VersionMin  uint16
	VersionMax  uint16
	Association [16]byte
	Services    []string // names that this client may join, by their index; each 1 to MaxService bytes of printable UTF-8
	Text        string   // why it was refused, 0 to MaxText bytes of printable UTF-8
}

// Join is what a client says first on a data connection.
type Join struct {
	Association [16]byte
	Flow        uint64
	Service     uint16
}

// AppendAsk appends the whole message, header included.
func AppendAsk(b []byte, a Ask) []byte {
	b, start := appendHeader(b, KindAsk)
	b = be.AppendUint16(b, a.VersionMin)
	b = be.AppendUint16(b, a.VersionMax)
	return finish(b, start)
}

// DecodeAsk decodes the body of an ASK. Bytes behind the last field are
// ignored.
func DecodeAsk(body []byte) (Ask, error) {
	r := reader{b: body}
	a := Ask{VersionMin: r.u16(), VersionMax: r.u16()}
	if r.short || a.VersionMin == 0 || a.VersionMin > a.VersionMax {
		return Ask{}, fmt.Errorf("%w: versions %d to %d", ErrHello, a.VersionMin, a.VersionMax)
	}
	return a, nil
}

// AppendGrant appends the whole message, header included.
func AppendGrant(b []byte, g Grant) ([]byte, error) {
	if err := g.check(); err != nil {
		return b, err
	}
	b, start := appendHeader(b, KindGrant)
	b = append(b, byte(g.Status))
	b = be.AppendUint16(b, g.Version)
	b = be.AppendUint16(b, g.VersionMin)
	b = be.AppendUint16(b, g.VersionMax)
	b = append(b, g.Association[:]...)
	b = append(b, byte(len(g.Services)))
	for _, s := range g.Services {
		b = append(append(b, byte(len(s))), s...)
	}
	b = append(be.AppendUint16(b, uint16(len(g.Text))), g.Text...)
	return finish(b, start), nil
}

// DecodeGrant decodes the body of a GRANT. Bytes behind the last field are
// ignored.
func DecodeGrant(body []byte) (Grant, error) {
	r := reader{b: body}
	g := Grant{Status: Status(r.u8()), Version: r.u16(), VersionMin: r.u16(), VersionMax: r.u16()}
	copy(g.Association[:], r.long(len(g.Association)))
	for range r.u8() {
		g.Services = append(g.Services, string(r.long(int(r.u8()))))
	}
	g.Text = string(r.long(int(r.u16())))
	if r.short {
		return Grant{}, fmt.Errorf("%w: grant is cut short", ErrHello)
	}
	return g, g.check()
}

func (g Grant) check() error {
	if g.VersionMin == 0 || g.VersionMin > g.VersionMax || len(g.Services) > MaxServices {
		return fmt.Errorf("%w: versions %d to %d, %d services", ErrHello, g.VersionMin, g.VersionMax, len(g.Services))
	}
	switch {
	case g.Status == StatusOK && (g.Version < g.VersionMin || g.Version > g.VersionMax || g.Text != ""):
		return fmt.Errorf("%w: version %d chosen out of %d to %d", ErrHello, g.Version, g.VersionMin, g.VersionMax)
	case g.Status != StatusOK && (g.Version != 0 || g.Association != [16]byte{} || len(g.Services) > 0):
		return fmt.Errorf("%w: a refusal with an association", ErrHello)
	}
	for _, s := range g.Services {
		if s == "" {
			return fmt.Errorf("%w: service without a name", ErrHello)
		}
		if err := checkString("service", s, MaxService); err != nil {
			return err
		}
	}
	return checkString("text", g.Text, MaxText)
}

// AppendJoin appends all of a Join but its tag.
func AppendJoin(b []byte, j Join) []byte {
	b = append(b, joinMagic...)
	b = append(b, j.Association[:]...)
	b = be.AppendUint64(b, j.Flow)
	return be.AppendUint16(b, j.Service)
}

// ParseJoin reads the first JoinCovered bytes of a data connection. Whether
// they are true only the tag behind them says.
func ParseJoin(b []byte) (Join, error) {
	if len(b) < JoinCovered || string(b[:4]) != joinMagic {
		return Join{}, fmt.Errorf("%w: the client does not speak the relay's protocol", ErrJoin)
	}
	j := Join{Association: [16]byte(b[4:20]), Flow: be.Uint64(b[20:]), Service: be.Uint16(b[28:])}
	if j.Flow == 0 {
		return Join{}, fmt.Errorf("%w: flow 0", ErrJoin)
	}
	return j, nil
}
