package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func sampleHello() Hello {
	return Hello{VersionMin: 1, VersionMax: 3, Session: [16]byte{1, 2, 3, 15: 9}, Resume: true, Link: 7, Name: "wifi-1"}
}

func sampleBeside() Hello {
	h := sampleHello()
	h.Beside = [16]byte{7, 15: 8}
	return h
}

func sampleWelcome() Welcome {
	return Welcome{Version: 2, VersionMin: 1, VersionMax: 2, Resumed: true, Secret: [32]byte{5, 31: 6}, Name: "cloud-a", Text: "hi"}
}

func TestHelloSurvivesCodec(t *testing.T) {
	for _, h := range []Hello{
		sampleHello(),
		{VersionMin: 1, VersionMax: 1, Name: "x"},
		sampleBeside(),
		{VersionMin: 4, VersionMax: 4, Name: "x", Beside: [16]byte{1}, Twin: true},
		{VersionMin: 65535, VersionMax: 65535, Link: 65535, Name: strings.Repeat("ü", MaxName/2)},
	} {
		b, err := AppendHello([]byte("before"), h)
		if err != nil {
			t.Fatal(err)
		}
		msg := b[len("before"):]
		n, err := HelloLength(msg[:HelloHeaderSize], KindHello)
		if err != nil || n != len(msg)-HelloHeaderSize {
			t.Fatalf("length %d, error %v; message has %d bytes", n, err, len(msg))
		}
		got, err := DecodeHello(msg[HelloHeaderSize:])
		if err != nil || got != h {
			t.Fatalf("got %+v, %v; want %+v", got, err, h)
		}
	}
}

func TestWelcomeSurvivesCodec(t *testing.T) {
	for _, w := range []Welcome{
		sampleWelcome(),
		{Status: StatusVersion, VersionMin: 4, VersionMax: 9, Text: strings.Repeat("z", MaxText)},
		{Status: 200, VersionMin: 1, VersionMax: 1, Name: strings.Repeat("n", MaxName)},
	} {
		msg, err := AppendWelcome(nil, w)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := HelloLength(msg[:HelloHeaderSize], KindWelcome); err != nil || n != len(msg)-HelloHeaderSize {
			t.Fatalf("length %d, error %v", n, err)
		}
		got, err := DecodeWelcome(msg[HelloHeaderSize:])
		if err != nil || got != w {
			t.Fatalf("got %+v, %v; want %+v", got, err, w)
		}
	}
}

// A version 2 peer may append fields and flags; version 1 must still read the
// versions, or it could not say why it refuses.
func TestLaterFieldsAreIgnored(t *testing.T) {
	msg, _ := AppendHello(nil, sampleHello())
	body := append(bytes.Clone(msg[HelloHeaderSize:]), 1, 2, 3)
	body[20] |= 0xF0
	if got, err := DecodeHello(body); err != nil || got != sampleHello() {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestHelloRejects(t *testing.T) {
	for name, change := range map[string]func(*Hello){
		"version zero":      func(h *Hello) { h.VersionMin = 0 },
		"versions reversed": func(h *Hello) { h.VersionMin = 4 },
		"no name":           func(h *Hello) { h.Name = "" },
		"long name":         func(h *Hello) { h.Name = strings.Repeat("a", MaxName+1) },
		"line break":        func(h *Hello) { h.Name = "a\nb" },
		"escape":            func(h *Hello) { h.Name = "a\x1b[31m" },
		"not UTF-8":         func(h *Hello) { h.Name = "a\xff" },
	} {
		h := sampleHello()
		change(&h)
		if _, err := AppendHello(nil, h); !errors.Is(err, ErrHello) {
			t.Errorf("%s: encoder said %v", name, err)
		}
	}
}

func TestWelcomeRejects(t *testing.T) {
	for name, change := range map[string]func(*Welcome){
		"version zero":           func(w *Welcome) { w.VersionMin = 0 },
		"version out of range":   func(w *Welcome) { w.Version = 3 },
		"refusal with secret":    func(w *Welcome) { w.Status, w.Version, w.Resumed = StatusBusy, 0, false },
		"refusal with version":   func(w *Welcome) { w.Status, w.Secret, w.Resumed = StatusBusy, [32]byte{}, false },
		"refusal that resumes":   func(w *Welcome) { w.Status, w.Secret, w.Version = StatusBusy, [32]byte{}, 0 },
		"text too long":          func(w *Welcome) { w.Text = strings.Repeat("a", MaxText+1) },
		"text with a line break": func(w *Welcome) { w.Text = "a\nb" },
		"name too long":          func(w *Welcome) { w.Name = strings.Repeat("a", MaxName+1) },
	} {
		w := sampleWelcome()
		change(&w)
		if _, err := AppendWelcome(nil, w); !errors.Is(err, ErrHello) {
			t.Errorf("%s: encoder said %v", name, err)
		}
	}
}

func TestHelloLengthRejects(t *testing.T) {
	good, _ := AppendHello(nil, sampleHello())
	for name, change := range map[string]func([]byte) []byte{
		"magic":     func(b []byte) []byte { b[0] ^= 1; return b },
		"type":      func(b []byte) []byte { b[4] = byte(KindWelcome); return b },
		"length":    func(b []byte) []byte { b[6], b[7] = 0x04, 0x01; return b },
		"cut short": func(b []byte) []byte { return b[:7] },
	} {
		if _, err := HelloLength(change(bytes.Clone(good[:HelloHeaderSize])), KindHello); !errors.Is(err, ErrHello) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryCutIsShort(t *testing.T) {
	h, _ := AppendHello(nil, sampleHello())
	for i := HelloHeaderSize; i < len(h); i++ {
		if _, err := DecodeHello(h[HelloHeaderSize:i]); !errors.Is(err, ErrHello) {
			t.Errorf("hello cut to %d bytes: %v", i, err)
		}
	}
	b, _ := AppendHello(nil, sampleBeside())
	for i := HelloHeaderSize; i < len(b); i++ {
		if _, err := DecodeHello(b[HelloHeaderSize:i]); !errors.Is(err, ErrHello) {
			t.Errorf("hello of an urgent connection cut to %d bytes: %v", i, err)
		}
	}
	clear(b[len(b)-16:])
	if _, err := DecodeHello(b[HelloHeaderSize:]); !errors.Is(err, ErrHello) {
		t.Errorf("an urgent connection beside nothing: %v", err)
	}
	w, _ := AppendWelcome(nil, sampleWelcome())
	for i := HelloHeaderSize; i < len(w); i++ {
		if _, err := DecodeWelcome(w[HelloHeaderSize:i]); !errors.Is(err, ErrHello) {
			t.Errorf("welcome cut to %d bytes: %v", i, err)
		}
	}
}

func TestChooseVersion(t *testing.T) {
	for _, c := range []struct {
		hMin, hMax, lo, hi, want uint16
		ok                       bool
	}{
		{1, 1, 1, 1, 1, true}, {1, 3, 2, 5, 3, true}, {2, 9, 1, 4, 4, true},
		{1, 1, 2, 3, 0, false}, {4, 5, 2, 3, 0, false},
	} {
		v, ok := ChooseVersion(Hello{VersionMin: c.hMin, VersionMax: c.hMax}, c.lo, c.hi)
		if ok != c.ok || ok && v != c.want {
			t.Errorf("%+v: got %d %v", c, v, ok)
		}
	}
}

func TestStatusNames(t *testing.T) {
	if got := StatusInternal.String(); got != "internal fault" {
		t.Errorf("last status is %q", got)
	}
	if got := Status(99).String(); got != "status 99" {
		t.Errorf("unknown status is %q", got)
	}
}

// FuzzHello feeds both decoders; what they accept must survive being encoded
// and decoded again.
func FuzzHello(f *testing.F) {
	h, _ := AppendHello(nil, sampleHello())
	w, _ := AppendWelcome(nil, sampleWelcome())
	b, _ := AppendHello(nil, sampleBeside())
	f.Add(h)
	f.Add(b)
	f.Add(w)
	f.Add([]byte("hwsr\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HelloHeaderSize {
			return
		}
		header, body := b[:HelloHeaderSize], b[HelloHeaderSize:]
		if n, err := HelloLength(header, KindHello); err == nil && n > MaxHelloBody {
			t.Fatalf("length %d accepted", n)
		}
		if h, err := DecodeHello(body); err == nil {
			again, err := AppendHello(nil, h)
			if err != nil {
				t.Fatalf("decoded %+v cannot be encoded: %v", h, err)
			}
			if got, err := DecodeHello(again[HelloHeaderSize:]); err != nil || got != h {
				t.Fatalf("%+v became %+v, %v", h, got, err)
			}
		}
		if w, err := DecodeWelcome(body); err == nil {
			again, err := AppendWelcome(nil, w)
			if err != nil {
				t.Fatalf("decoded %+v cannot be encoded: %v", w, err)
			}
			if len(again) > HelloHeaderSize+MaxHelloBody {
				t.Fatalf("message of %d bytes", len(again))
			}
			if got, err := DecodeWelcome(again[HelloHeaderSize:]); err != nil || got != w {
				t.Fatalf("%+v became %+v, %v", w, got, err)
			}
		}
	})
}
