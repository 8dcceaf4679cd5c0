// Command hawser-edge is the box with the uplinks. What it does is wired in
// edge/agent; its verbs are those of pkg/cli.
package main

import (
	"os"

	"hawser/edge/agent"
	"hawser/pkg/cli"
	"hawser/pkg/config"
	"hawser/pkg/gateway"
)

func main() {
	var edge agent.Edge
	os.Exit(cli.Main(cli.Role[*config.Edge]{
		Name:    "edge",
		Parse:   config.ParseEdge,
		Run:     edge.Run,
		Take:    edge.Take,
		Check:   agent.Check,
		Cleanup: agent.Cleanup,
	}, cli.Relay(cli.Role[*config.EdgeRelay]{
		Name:  "edge-relay",
		Parse: config.ParseEdgeRelay,
		Run:   gateway.RunNear,
		Check: gateway.CheckNear,
	})))
}
