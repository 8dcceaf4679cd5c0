package hint

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	h, err := Parse([]byte(`{"link":"lte","usable":false,"rate_up_kbit":800,"rate_down_kbit":4000,"signal_dbm":-97.4,"position":[52.5,13.4],"valid_s":2.5}` + "\n"))
	if err != nil || h.Link != "lte" || h.Usable || h.Up != 100_000 || h.Down != 500_000 || h.Valid != 2500*time.Millisecond {
		t.Fatalf("%+v, %v", h, err)
	}
	if s := h.String(); s != "leaving, up 800 kbit/s, down 4000 kbit/s, signal -97 dBm, at 52.50000,13.40000" {
		t.Error(s)
	}
	if h, err := Parse([]byte(`{"link":"lte","valid_s":0}`)); err != nil || !h.Usable || h.Valid != 0 || h.String() != "usable" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestRefused(t *testing.T) {
	for in, want := range map[string]string{
		``:                                     "EOF",
		`lte is bad`:                           "write one line such as",
		`{"link":"lte"}`:                       "valid_s",
		`{"valid_s":1}`:                        "link is missing",
		`{"link":"lte","valid_s":-1}`:          "valid_s",
		`{"link":"lte","valid_s":1e9}`:         "valid_s",
		`{"link":"lte","valid_s":1,"speed":3}`: "unknown field",
		`{"link":"lte","valid_s":1} {}`:        "something follows",
		`{"link":"lte","valid_s":1,"rate_up_kbit":0}`:      "rate_up_kbit",
		`{"link":"lte","valid_s":1,"rate_down_kbit":1e99}`: "rate_down_kbit",
		`{"link":"lte","valid_s":1,"signal_dbm":300}`:      "signal_dbm",
		`{"link":"lte","valid_s":1,"position":[52]}`:       "position",
		`{"link":"lte","valid_s":1,"position":[91,0]}`:     "position",
		`{"link":["lte"],"valid_s":1}`:                     "cannot unmarshal",
		`{"link":"lte","usable":"yes","valid_s":1}`:        "cannot unmarshal",
		`[1]`: "cannot unmarshal",
	} {
		_, err := Parse([]byte(in))
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\r") || !strings.HasPrefix(err.Error(), "hint: ") {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

// TestBounds: each figure is taken up to its bounds, and refused beyond either.
func TestBounds(t *testing.T) {
	for _, c := range []struct{ key, least, most, below, above string }{
		{"valid_s", "0", "3600", "-0.1", "3600.1"},
		{"signal_dbm", "-200", "50", "-200.1", "50.1"},
		{"rate_up_kbit", "1", "1e9", "0.9", "1.1e9"},
		{"rate_down_kbit", "1", "1e9", "0.9", "1.1e9"},
		{"position", "[-90,-180]", "[90,180]", "[-90.1,0]", "[90.1,0]"},
		{"position", "[0,-180]", "[0,180]", "[0,-180.1]", "[0,180.1]"},
		{"position", "[0,0]", "[0,0]", "[0]", "[0,0,0]"},
	} {
		valid := `"valid_s":1,`
		if c.key == "valid_s" {
			valid = ""
		}
		for value, fits := range map[string]bool{c.least: true, c.most: true, c.below: false, c.above: false} {
			_, err := Parse([]byte(`{"link":"lte",` + valid + `"` + c.key + `":` + value + `}`))
			if (err == nil) != fits || err != nil && !strings.Contains(err.Error(), c.key) {
				t.Errorf("%s of %s: %v", c.key, value, err)
			}
		}
	}
}

// FuzzParse: whatever comes, the answer is a hint within its bounds or one
// line that says what is wrong.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"link":"lte","usable":false,"rate_up_kbit":800,"position":[52.5,13.4],"valid_s":2.5}`))
	f.Add([]byte(`{"link":"\n","valid_s":1e-300}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := Parse(in)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 400 {
				t.Fatalf("not one short line: %q", err)
			}
			return
		}
		if h.Link == "" || h.Valid < 0 || h.Valid > MaxValid || h.Up < 0 || h.Up > 125*maxRate || h.Down < 0 || h.Down > 125*maxRate {
			t.Fatalf("%+v", h)
		}
		_ = h.String()
	})
}
