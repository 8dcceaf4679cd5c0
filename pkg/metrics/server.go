// Package metrics shows an agent's status document to Prometheus: GET /metrics
// on an address of the operator's choice, without authentication, so best one
// that only the machine itself reaches.
//
// Goroutines: Run owns Server.stop, which ends with its context; the HTTP
// server's own end with it. Run returns after all of them.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"hawser/pkg/admin"
)

// patience is how long a client may take for its request and reply.
const patience = 10 * time.Second

// most is how many connections there are at once. The next waits: who can reach the port
// could else take memory and descriptors that links and connections of clients need.
const most = 32

// Server serves metrics. Its fields are set before Listen and not changed
// after.
type Server struct {
	Address string              // host:port to listen on; "" = no metrics
	Source  func() admin.Status // the current status; called from several goroutines

	listener net.Listener
}

// Listen binds the address, so that a taken port is known before the host is
// touched. It does nothing without an address.
func (s *Server) Listen() (err error) {
	if s.Address == "" {
		return nil
	}
	if s.listener, err = net.Listen("tcp", s.Address); err != nil {
		return fmt.Errorf("metrics: cannot listen on %s: %w: set another address in metrics", s.Address, errors.Unwrap(err))
	}
	return nil
}

// Addr is the bound address; nil before Listen or without an address.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Close undoes Listen when Run will not be called.
func (s *Server) Close() {
	if s.listener != nil {
		s.listener.Close()
	}
}

// Run serves until ctx ends, and then returns nil. Without an address it only
// waits.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	server := &http.Server{
		Handler: Handler(s.Source), ReadTimeout: patience, WriteTimeout: patience,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	var stopping sync.WaitGroup
	stopping.Add(1)
	go s.stop(ctx, &stopping, server)
	err := server.Serve(netutil.LimitListener(s.listener, most))
	cancel()
	stopping.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("metrics: %w", err)
}

// stop ends Serve; scrapes under way may finish.
func (s *Server) stop(ctx context.Context, done *sync.WaitGroup, server *http.Server) {
	defer done.Done()
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
}

// Handler answers GET /metrics from the status document.
func Handler(source func() admin.Status) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{source})
	mux := http.NewServeMux()
	// A peer that calls two links alike costs its own second reading, not the whole scrape.
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError,
	}))
	return mux
}
