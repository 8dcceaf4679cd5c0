// Command hawser-cloud is the box near the servers. What it does is wired in
// cloud/agent; its verbs are those of pkg/cli.
package main

import (
	"os"

	"hawser/cloud/agent"
	"hawser/pkg/cli"
	"hawser/pkg/config"
	"hawser/pkg/gateway"
)

func main() {
	var cloud agent.Cloud
	var gate gateway.Far
	os.Exit(cli.Main(cli.Role[*config.Cloud]{
		Name:    "cloud",
		Parse:   config.ParseCloud,
		Run:     cloud.Run,
		Take:    cloud.Take,
		Check:   agent.Check,
		Cleanup: agent.Cleanup,
	}, cli.Relay(cli.Role[*config.CloudRelay]{
		Name:  "cloud-relay",
		Parse: config.ParseCloudRelay,
		Run:   gate.Run,
		Take:  gate.Take,
		Check: gateway.CheckFar,
	})))
}
