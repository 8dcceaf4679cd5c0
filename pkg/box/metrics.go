package box

import (
	"errors"

	"golang.org/x/sys/unix"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/metrics"
)

// Metrics makes the server that shows the status to Prometheus; without an
// address in the file it does nothing.
func Metrics(cfg *config.Box, source func() admin.Status) *metrics.Server {
	s := &metrics.Server{Source: source}
	if cfg.Metrics != (config.Endpoint{}) {
		s.Address = cfg.Metrics.String()
	}
	return s
}

// CheckMetrics finds out whether the address for metrics can be had.
func CheckMetrics(cfg *config.Box) []admin.Finding {
	s := Metrics(cfg, nil)
	if s.Address == "" {
		return nil
	}
	if err := s.Listen(); err != nil {
		return []admin.Finding{{Level: admin.LevelFail, What: err.Error(), Remedy: "stop the program that has the port, or set another address in metrics",
			Taken: errors.Is(err, unix.EADDRINUSE)}}
	}
	s.Close()
	return []admin.Finding{{Level: admin.LevelOK, What: "metrics: TCP " + s.Address + " is free"}}
}
