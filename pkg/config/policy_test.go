package config

import (
	"strings"
	"testing"
)

func TestBrokenPolicies(t *testing.T) {
	for list, want := range map[string]string{
		"{class: latency}":                                              `edge.yaml:7: policies[0].name: missing: give the policy a name of its own, such as guests`,
		"{name: a}\n  - {name: b}\n  - {name: a}":                       `edge.yaml:9: policies[2].name: "a" is already the name of policies[0]: give each policy its own`,
		"{name: a, class: urgent}":                                      `edge.yaml:7: policies[0].class: "urgent" is not one of normal, latency, privileged, background`,
		"{name: a, weight: 0}":                                          `edge.yaml:7: policies[0].weight: "0" is not a number from 1 to 64`,
		"{name: a, weight: 65}":                                         `edge.yaml:7: policies[0].weight: "65" is not a number from 1 to 64`,
		"{name: a, limit: 20}":                                          `edge.yaml:7: policies[0].limit: "20" is not a rate such as 20Mbit/s or 500kbit/s`,
		"{name: a, limit: 1kbit/s}":                                     `edge.yaml:7: policies[0].limit: "1kbit/s" is too little: give at least 64.0 kbit/s`,
		"{name: a, limit: 1Mbit/s, guarantee: 2Mbit/s}":                 `edge.yaml:7: policies[0].guarantee: 2.00 Mbit/s is above the policy's limit, 1.00 Mbit/s`,
		"{name: a, class: latency, guarantee: 2Mbit/s}":                 `edge.yaml:7: policies[0].guarantee: class latency is served before all guarantees: leave one of the two out`,
		"{name: a, client: 10.0.0.0/8, destination: \"2001:db8::/32\"}": `edge.yaml:7: policies[0].destination: 2001:db8::/32 and the policy's client 10.0.0.0/8 are not of one IP version: nothing matches both`,
		"{name: a, client: 10.0.0.1/8}":                                 `edge.yaml:7: policies[0].client: "10.0.0.1/8" has bits beyond its length: write 10.0.0.0/8`,
		"{name: a, ports: [0]}":                                         `edge.yaml:7: policies[0].ports[0]: "0" is not a port from 1 to 65535`,
		"{name: a, action: direct, limit: 2Mbit/s}":                     `edge.yaml:7: policies[0].limit: has no effect with action direct: leave one of the two out`,
		"{name: a, action: direct, handshake: fast}":                    `edge.yaml:7: policies[0].handshake: has no effect with action direct: leave one of the two out`,
		"{name: a, action: drop}":                                       `edge.yaml:7: policies[0].action: "drop" is not one of tunnel, direct`,
		"{name: a, handshake: slow}":                                    `edge.yaml:7: policies[0].handshake: "slow" is not one of auto, zero-window, fast, strict`,
		"{name: a, user: host}":                                         `edge.yaml:7: policies[0].user: "host" is not one of client, all`,
		"{name: a, dscp: 46}":                                           `edge.yaml:7: policies[0]: "dscp": unknown key; known here: action, class, client, destination, guarantee, handshake, limit, name, ports, user, weight`,
		strings.Repeat("{name: a}\n  - ", MaxPolicies) + "{name: a}":    `edge.yaml:6: policies: 1025 policies: at most 1024`,
	} {
		_, err := ParseEdge("edge.yaml", []byte(minimalEdge+"policies:\n  - "+list+"\n"))
		if err == nil || err.Error() != want {
			t.Errorf("%.80q:\n got %v\nwant %s", list, err, want)
		}
	}
}
