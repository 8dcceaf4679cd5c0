package agent

import (
	"strings"
	"testing"

	"hawser/pkg/config"
)

// TestCheckTransparent: what an edge without a hub does not do is told before it runs.
func TestCheckTransparent(t *testing.T) {
	policies := []config.Policy{{}, {Action: config.ActionDirect}, {Handshake: config.HandshakeStrict}}
	many := append(policies, make([]config.Policy, 4)...)
	for i := range many[3:] {
		many[3+i].Action = config.ActionDirect
	}
	for _, c := range []struct {
		cfg  config.Edge
		want string
	}{
		{config.Edge{Steer: config.Steer{Intercept: config.InterceptHub}, Handshake: config.HandshakeStrict, Policies: policies}, ""},
		{config.Edge{Steer: config.Steer{Intercept: config.InterceptTPROXY}, Policies: policies[:1]}, ""},
		{config.Edge{Steer: config.Steer{Intercept: config.InterceptTPROXY}, Handshake: config.HandshakeFast}, ": handshake"},
		{config.Edge{Steer: config.Steer{Intercept: config.InterceptTPROXY}, Policies: policies}, ": policies[1].action, policies[2].handshake"},
		{config.Edge{Steer: config.Steer{Intercept: config.InterceptTPROXY}, Policies: many}, ": policies[1].action, policies[2].handshake, policies[3].action, policies[4].action and 2 more"},
	} {
		found := checkTransparent(&c.cfg)
		if c.want == "" && len(found) > 0 || c.want != "" && (len(found) != 1 || !strings.HasSuffix(found[0].What, c.want)) {
			t.Errorf("want %q: %+v", c.want, found)
		}
	}
}
