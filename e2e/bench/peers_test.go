package main

import (
	"strings"
	"testing"
)

func TestPeerGates(t *testing.T) {
	row := func(c racer, mbit int64, done int) *peerRow {
		r := &peerRow{racer: c, Name: c.name, Bulk: map[string][]window{}, Churn: []churnRow{{Seconds: 2, Done: done}}}
		for _, l := range peerLoads {
			r.Bulk[l.name] = []window{{Seconds: 1, Bytes: mbit * 1e6 / 8}}
		}
		return r
	}
	rows := []*peerRow{
		row(racer{name: "fast", gates: bounds{rate: 1.3, churn: 1.5}}, 1300, 200),
		row(racer{name: "peer a", peer: true}, 1000, 100),
		row(racer{name: "peer b", peer: true}, 500, 150),
		row(racer{name: "bare"}, 9000, 9000), // no peer: nothing is measured against it
	}
	r := peerReport(rows)
	if n := len(r.Gates); n != len(peerLoads)+1 {
		t.Fatalf("%d gates: %v", n, r.Gates)
	}
	if n := r.missed(); n != 1 { // 100 per second against 1.5 times 75
		t.Errorf("%d gates missed, want that of connections alone: %v", n, r.Gates)
	}
	if text := r.Gates[len(r.Gates)-1].String(); !strings.Contains(text, "MISSED") || !strings.Contains(text, "1.33 times, wanted 1.50") {
		t.Errorf("gate of connections: %s", text)
	}
}

func TestPeerFiles(t *testing.T) {
	files := map[string]string{"edge.pem": "E", "edge.crt": "e", "cloud.pem": "C", "cloud.crt": "c"}
	f := []forward{{name: "bulk"}}
	for name, file := range map[string]func(bool, map[string]string, []forward) string{"stunnel": stunnelFile, "haproxy": haproxyFile} {
		near, far := file(true, files, f), file(false, files, f)
		for _, want := range []string{suite, "TLSv1.3"} {
			if !strings.Contains(near, want) || !strings.Contains(far, want) {
				t.Errorf("%s: %q is missing", name, want)
			}
		}
		if near == far {
			t.Errorf("%s: both sides are alike", name)
		}
	}
}
