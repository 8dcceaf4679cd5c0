package emu

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestParamsSurviveJSON(t *testing.T) {
	want := Params{
		Delay: 20 * time.Millisecond, Jitter: time.Millisecond, Reorder: true, Rate: 5e6,
		QueueTime: 80 * time.Millisecond, Loss: 0.01, Burst: BurstOf(0.02, 5), TraceScale: 2, Blackhole: true,
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Params
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestPatchChangesOnlyItsFields(t *testing.T) {
	p := Params{Delay: 20 * time.Millisecond, Rate: 5e6, Loss: 0.01}
	if err := json.Unmarshal([]byte(`{"delay": "5ms", "loss": 0}`), &p); err != nil {
		t.Fatal(err)
	}
	if want := (Params{Delay: 5 * time.Millisecond, Rate: 5e6}); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
}

func TestBadParams(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`{"delay": "-1ms"}`, "delay"},
		{`{"delay": "fast"}`, "delay"},
		{`{"delay": "2h"}`, "delay"},
		{`{"jitter": "-1ns"}`, "jitter"},
		{`{"rate": -5}`, "rate"},
		{`{"queue_bytes": -1}`, "queue_bytes"},
		{`{"queue": "1s", "queue_bytes": 5}`, "queue"},
		{`{"loss": 1.5}`, "loss"},
		{`{"burst": {"enter": 2}}`, "burst.enter"},
		{`{"trace": "x", "rate": 5}`, "trace"},
		{`{"trace_scale": -2}`, "trace_scale"},
		{`{"lost": 0.1}`, "lost"},
		{`[]`, "array"},
	} {
		var p Params
		err := json.Unmarshal([]byte(c.json), &p)
		if err == nil {
			err = p.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that names %q", c.json, err, c.want)
		}
	}
}

func FuzzParams(f *testing.F) {
	f.Add([]byte(`{"delay": "5ms", "loss": 0.5, "rate": 1000000, "burst": {"enter": 0.1}}`))
	f.Add([]byte(`{"queue": "1s", "blackhole": true, "trace": "x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, again Params
		if json.Unmarshal(b, &p) != nil || p.Validate() != nil {
			return
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &again); err != nil || again != p {
			t.Fatalf("%s: %v, %+v is not %+v", text, err, again, p)
		}
		m := NewModel(p, nil, 1)
		m.Arrive(0, Packet{Size: 1500})
		m.Next()
	})
}
