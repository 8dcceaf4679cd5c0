package netns

import "testing"

// TestRedirectedToTheHost: what the host has clients connect to in the server's place, as a
// proxy, a captive portal or its own name server, answers them, also where what the host
// itself opens is steered.
func TestRedirectedToTheHost(t *testing.T) {
	w := newWorld(t)
	w.serve(here, "host", 3128)
	w.run("iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 53 -j REDIRECT --to-ports 3128",
		"ip6tables -t nat -A PREROUTING -i lan0 -p tcp --dport 53 -j REDIRECT --to-ports 3128")
	for _, e := range families {
		w.asks("client, before", w.client, bound{}, at(e.server, 53), "host "+e.client)
	}
	h := w.install(w.plan)
	newEchoStack(t, h, 1, FanoutSource, true)
	for _, e := range families {
		w.asks("client", w.client, bound{}, at(e.server, 53), "host "+e.client)
		w.asks("client, another port", w.client, bound{}, at(e.server, 80), "stack")
		w.asks("host", here, bound{}, at(e.server, 53), "stack")
	}
}
