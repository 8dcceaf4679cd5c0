// Package gateway is the stand-alone relay: the relay core between kernel
// sockets. Near is its client side (hawser-edge relay), which takes plain
// connections and carries each over a sealed one (RunNear); Far is the gateway
// (hawser-cloud relay), which takes sealed connections and dials servers.
//
// Goroutines: each side's Run owns one each for the workers (box.Workers.Run),
// the control socket (admin.Server.Run) and metrics (metrics.Server.Run); the
// near side one more for its association (sealed.Dialer.Run), the far side one
// for each service that is given by name (service.keep). The far side's
// sealed.Gate owns one per client. Run returns after all have ended.
package gateway
