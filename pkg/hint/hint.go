// Package hint reads what other programs on an edge know of its uplinks: a
// modem's signal, the position of a train, a forecast. A hint is one line of
// JSON and holds for a while; stale ones count for nothing.
//
// The package starts no goroutines.
package hint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Hint is what a program says of one link.
type Hint struct {
	Link     string
	Usable   bool          // false: about to die
	Up, Down float64       // forecasts, bytes per second; 0: none
	Signal   *float64      // dBm; nil: not said. For status only
	Position *[2]float64   // latitude and longitude, degrees; nil: not said. For status only
	Valid    time.Duration // how long it holds from now on; 0: it is withdrawn
}

// MaxValid is the longest time that a hint may hold.
const MaxValid = time.Hour

// maxRate is the highest forecast, in kbit/s: a terabit per second.
const maxRate = 1e9

type line struct {
	Link     *string   `json:"link"`
	Usable   *bool     `json:"usable"`
	RateUp   *float64  `json:"rate_up_kbit"`
	RateDown *float64  `json:"rate_down_kbit"`
	Signal   *float64  `json:"signal_dbm"`
	Position []float64 `json:"position"`
	Valid    *float64  `json:"valid_s"`
}

// Parse reads one line. It refuses what it does not know.
func Parse(text []byte) (Hint, error) {
	var l line
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return Hint{}, fmt.Errorf("hint: %s: write one line such as {\"link\":\"lte\",\"usable\":false,\"valid_s\":5}", oneLine(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Hint{}, errors.New("hint: something follows the object: write one per line")
	}
	return l.check()
}

func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return strings.ToValidUTF8(text[:min(len(text), 120)], "")
}

func (l *line) check() (Hint, error) {
	h := Hint{Usable: true, Signal: l.Signal}
	switch {
	case l.Link == nil || *l.Link == "":
		return h, errors.New("hint: link is missing: name one of the edge's links")
	case l.Valid == nil || *l.Valid < 0 || *l.Valid > MaxValid.Seconds():
		return h, fmt.Errorf("hint: valid_s: say for how many seconds it holds, 0 (withdrawn) to %.0f", MaxValid.Seconds())
	case l.Signal != nil && (*l.Signal < -200 || *l.Signal > 50):
		return h, errors.New("hint: signal_dbm is not a signal from -200 to 50 dBm")
	}
	h.Link, h.Valid = *l.Link, time.Duration(*l.Valid*float64(time.Second))
	if l.Usable != nil {
		h.Usable = *l.Usable
	}
	for _, r := range []struct {
		key string
		in  *float64
		out *float64
	}{{"rate_up_kbit", l.RateUp, &h.Up}, {"rate_down_kbit", l.RateDown, &h.Down}} {
		if r.in == nil {
			continue
		}
		if *r.in < 1 || *r.in > maxRate {
			return h, fmt.Errorf("hint: %s is not a rate from 1 to %.0f kbit/s", r.key, float64(maxRate))
		}
		*r.out = *r.in * 125
	}
	return h, h.place(l.Position)
}

func (h *Hint) place(at []float64) error {
	if at == nil {
		return nil
	}
	if len(at) != 2 || at[0] < -90 || at[0] > 90 || at[1] < -180 || at[1] > 180 {
		return errors.New("hint: position is not [latitude, longitude] in degrees")
	}
	h.Position = &[2]float64{at[0], at[1]}
	return nil
}

// String says for status what the hint says.
func (h Hint) String() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if !h.Usable {
		add("leaving")
	}
	if h.Up > 0 {
		add("up %.0f kbit/s", h.Up/125)
	}
	if h.Down > 0 {
		add("down %.0f kbit/s", h.Down/125)
	}
	if h.Signal != nil {
		add("signal %.0f dBm", *h.Signal)
	}
	if h.Position != nil {
		add("at %.5f,%.5f", h.Position[0], h.Position[1])
	}
	if len(parts) == 0 {
		return "usable"
	}
	return strings.Join(parts, ", ")
}
