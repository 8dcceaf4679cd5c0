package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func sampleGrant() Grant {
	return Grant{Version: 1, VersionMin: 1, VersionMax: 2, Association: [16]byte{1, 2, 3}, Services: []string{"web", "mqtt"}}
}

func TestGrant(t *testing.T) {
	for _, want := range []Grant{sampleGrant(), {Status: StatusUnknownEdge, VersionMin: 1, VersionMax: 1, Text: "not configured"}} {
		b, err := AppendGrant(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		n, err := HelloLength(b[:HelloHeaderSize], KindGrant)
		if err != nil || n != len(b)-HelloHeaderSize {
			t.Fatalf("length %d, %v", n, err)
		}
		got, err := DecodeGrant(append(b[HelloHeaderSize:], 9, 9)) // a later version's fields
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		for i := range b[HelloHeaderSize:] {
			if _, err := DecodeGrant(b[HelloHeaderSize : HelloHeaderSize+i]); !errors.Is(err, ErrHello) {
				t.Fatalf("cut to %d bytes: %v", i, err)
			}
		}
	}
}

// The largest grant fits into what a length may announce.
func TestLargestGrant(t *testing.T) {
	g := sampleGrant()
	g.Services = nil
	for range MaxServices {
		g.Services = append(g.Services, strings.Repeat("a", MaxService))
	}
	b, err := AppendGrant(nil, g)
	if err != nil || len(b)-HelloHeaderSize > MaxHelloBody {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestGrantRejects(t *testing.T) {
	for name, change := range map[string]func(*Grant){
		"version out of range": func(g *Grant) { g.Version = 3 },
		"refusal that grants":  func(g *Grant) { g.Status = StatusBusy },
		"too many services":    func(g *Grant) { g.Services = make([]string, MaxServices+1) },
		"nameless service":     func(g *Grant) { g.Services[1] = "" },
		"line break":           func(g *Grant) { g.Services[1] = "a\nb" },
	} {
		g := sampleGrant()
		change(&g)
		if _, err := AppendGrant(nil, g); !errors.Is(err, ErrHello) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAsk(t *testing.T) {
	b := AppendAsk(nil, Ask{1, 7})
	if a, err := DecodeAsk(b[HelloHeaderSize:]); err != nil || a != (Ask{1, 7}) {
		t.Errorf("%+v, %v", a, err)
	}
	for _, bad := range [][]byte{nil, {0, 1, 0}, {0, 0, 0, 1}, {0, 2, 0, 1}} {
		if _, err := DecodeAsk(bad); !errors.Is(err, ErrHello) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestJoin(t *testing.T) {
	want := Join{Association: [16]byte{15: 1}, Flow: 1<<63 + 5, Service: 3}
	b := AppendJoin(nil, want)
	if len(b) != JoinCovered {
		t.Fatalf("%d bytes", len(b))
	}
	if got, err := ParseJoin(b); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	b[3] ^= 1
	if _, err := ParseJoin(b); !errors.Is(err, ErrJoin) {
		t.Errorf("magic: %v", err)
	}
	for _, bad := range [][]byte{nil, b[:29], AppendJoin(nil, Join{})} {
		if _, err := ParseJoin(bad); !errors.Is(err, ErrJoin) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

// FuzzGateway holds what each decoder of the stand-alone relay accepts to its
// encoder (PROTOCOL.md section 7).
func FuzzGateway(f *testing.F) {
	g, _ := AppendGrant(nil, sampleGrant())
	f.Add(g[HelloHeaderSize:])
	f.Add(AppendAsk(nil, Ask{1, 1})[HelloHeaderSize:])
	f.Add(AppendJoin(nil, Join{Flow: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := DecodeGrant(b); err == nil {
			again, err := AppendGrant(nil, g)
			if err != nil || !bytes.HasPrefix(b, again[HelloHeaderSize:]) {
				t.Errorf("grant %+v becomes %x, %v", g, again, err)
			}
		}
		if a, err := DecodeAsk(b); err == nil && !bytes.HasPrefix(b, AppendAsk(nil, a)[HelloHeaderSize:]) {
			t.Errorf("ask %+v", a)
		}
		if j, err := ParseJoin(b); err == nil && !bytes.HasPrefix(b, AppendJoin(nil, j)) {
			t.Errorf("join %+v", j)
		}
	})
}
