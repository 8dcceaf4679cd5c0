package metrics

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"hawser/pkg/admin"
)

func sample() admin.Status {
	return admin.Status{
		Role: "edge", Name: "train-7", Version: "1.2.3", Uptime: 12.5, Intercept: "hub", Detour: true,
		Card:     admin.Card{Kind: "inline"},
		Memory:   admin.Memory{Used: 1, Peak: 2, Budget: 3},
		Counters: map[string]uint64{"flows_started": 7, "goroutines": 51, "splice_open": 52, "splice_kernel_open": 53, "splice_opened": 54},
		Handshakes: &admin.Handshakes{
			Mode: "auto", Now: "zero-window", Switches: 41, Pending: 42, FirstFlights: 43, FirstFlightsPeak: 44, Clients: 45, Flood: true, Floods: 46, Unused: 47,
		},
		Sessions: []admin.Session{{
			Peer: "vm", State: "up", Flows: admin.Flows{Open: 4, Opened: 9, Refused: 2, Reset: 1},
			Counters: map[string]uint64{"forged": 5},
			Links: []admin.Link{{
				Name: "lte", State: "suspect", Transport: "tcp", RTT: 51.5, MinRTT: 50, RateUp: 8, RateDown: 9,
				BytesUp: 10, BytesDown: 11, InFlight: 12, Losses: 13, PacketsLost: 15, Reconnects: 14, Forged: 16, Tier: "standby", Lanes: []admin.Lane{{State: "up"}, {State: "down"}, {State: "up"}}, Quota: &admin.Quota{Bytes: 21, Used: 22, Allowed: 23},
				Interface: "wwan0", Device: &admin.Device{BytesUp: 31, BytesDown: 32, ErrorsDown: 33, DropsUp: 34, PacketsDown: 35},
			}},
		}, {Key: "c2Vjb25k\xff", State: "down"}},
	}
}

func scrape(t *testing.T, source func() admin.Status) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(source).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// TestLinksOfOneName: an edge names its links itself; what one of many calls two alike
// must not hide the others from who watches the cloud.
func TestLinksOfOneName(t *testing.T) {
	got := scrape(t, func() admin.Status {
		s := sample()
		s.Sessions[0].Links = append(s.Sessions[0].Links, s.Sessions[0].Links[0])
		s.Sessions = append(s.Sessions, admin.Session{Peer: "ship", State: "up"})
		return s
	})
	for _, want := range []string{`hawser_session_up{peer="ship"} 1`, `hawser_link_losses_total{link="lte",peer="vm"} 13`} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("lacks %s:\n%s", want, got)
		}
	}
}

func TestDocumentBecomesMetrics(t *testing.T) {
	got := scrape(t, sample)
	for _, want := range []string{
		"hawser_uptime_seconds 12.5", "hawser_detour 1", `hawser_link_forged_total{link="lte",peer="vm"} 16`,
		`hawser_build_info{card="inline",intercept="hub",name="train-7",role="edge",version="1.2.3"} 1`,
		"hawser_memory_used_bytes 1", "hawser_memory_peak_bytes 2", "hawser_memory_budget_bytes 3",
		`hawser_events_total{what="flows_started"} 7`, `hawser_events_total{what="splice_opened"} 54`,
		`hawser_present{what="goroutines"} 51`, `hawser_present{what="splice_open"} 52`, `hawser_present{what="splice_kernel_open"} 53`,
		`hawser_handshake_mode{mode="auto",now="zero-window"} 1`, "hawser_handshake_switches_total 41",
		"hawser_handshakes_pending 42", "hawser_handshake_first_flights_bytes 43", "hawser_handshake_first_flights_peak_bytes 44",
		"hawser_handshake_clients 45", "hawser_handshake_flood 1", "hawser_handshake_floods_total 46", "hawser_handshakes_unused 47",
		`hawser_session_up{peer="vm"} 1`, `hawser_session_up{peer="c2Vjb25k?"} 0`,
		`hawser_session_events_total{peer="vm",what="forged"} 5`,
		`hawser_flows_open{peer="vm"} 4`, `hawser_flows_total{peer="vm",what="opened"} 9`,
		`hawser_flows_total{peer="vm",what="refused"} 2`, `hawser_flows_total{peer="vm",what="reset"} 1`,
		`hawser_interface_bytes_total{direction="up",interface="wwan0",link="lte",peer="vm"} 31`,
		`hawser_interface_bytes_total{direction="down",interface="wwan0",link="lte",peer="vm"} 32`,
		`hawser_interface_errors_total{direction="down",interface="wwan0",link="lte",peer="vm"} 33`,
		`hawser_interface_drops_total{direction="up",interface="wwan0",link="lte",peer="vm"} 34`,
		`hawser_interface_packets_total{direction="down",interface="wwan0",link="lte",peer="vm"} 35`,
		`hawser_link_quota_bytes{link="lte",peer="vm",what="month"} 21`,
		`hawser_link_quota_bytes{link="lte",peer="vm",what="used"} 22`,
		`hawser_link_quota_bytes{link="lte",peer="vm",what="allowed"} 23`,
		`hawser_link_lanes{link="lte",peer="vm",state="up"} 2`,
		`hawser_link_lanes{link="lte",peer="vm",state="down"} 1`,
		`hawser_link_tier{link="lte",peer="vm",tier="standby"} 1`,
		`hawser_link_state{link="lte",peer="vm",state="suspect",transport="tcp"} 1`,
		`hawser_link_rtt_seconds{link="lte",peer="vm"} 0.0515`, `hawser_link_min_rtt_seconds{link="lte",peer="vm"} 0.05`,
		`hawser_link_rate_bits_per_second{direction="up",link="lte",peer="vm"} 8`,
		`hawser_link_rate_bits_per_second{direction="down",link="lte",peer="vm"} 9`,
		`hawser_link_bytes_total{direction="up",link="lte",peer="vm"} 10`,
		`hawser_link_bytes_total{direction="down",link="lte",peer="vm"} 11`,
		`hawser_link_in_flight_bytes{link="lte",peer="vm"} 12`,
		`hawser_link_losses_total{link="lte",peer="vm"} 13`, `hawser_link_packets_lost_total{link="lte",peer="vm"} 15`, `hawser_link_reconnects_total{link="lte",peer="vm"} 14`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(got, `hawser_events_total{what="goroutines"}`) {
		t.Error("goroutines are a counter, which never falls, too")
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestEmptyStatusIsServed(t *testing.T) {
	if got := scrape(t, func() admin.Status { return admin.Status{} }); !strings.Contains(got, "hawser_uptime_seconds 0") {
		t.Error(got)
	}
}

func TestTakenPortIsOneLine(t *testing.T) {
	first := &Server{Address: "127.0.0.1:0", Source: sample}
	if err := first.Listen(); err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second := &Server{Address: first.Addr().String(), Source: sample}
	err := second.Listen()
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "set another address in metrics") {
		t.Errorf("got %v", err)
	}
}

// TestRunLeavesNothing starts and stops servers, with a client that holds its
// connection open, and without an address.
func TestRunLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, address := range []string{"127.0.0.1:0", ""} {
		s := &Server{Address: address, Source: sample}
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		client := &http.Client{Transport: &http.Transport{}}
		if address != "" {
			r, err := client.Get("http://" + s.Addr().String() + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if !strings.Contains(string(body), "hawser_flows_open") {
				t.Errorf("got %s", body)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		client.CloseIdleConnections()
	}
	for i := 0; runtime.NumGoroutine() > before; i++ {
		if i == 6000 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
