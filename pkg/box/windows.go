package box

import (
	"log/slog"

	"hawser/pkg/resume"
)

// Windows lets fresh TCP links begin with what earlier ones have found, or says why
// they do not: then the result is nil.
func Windows(log *slog.Logger) *resume.Windows {
	w, err := resume.New()
	if err != nil {
		log.Info("fresh TCP links begin with ten packets", "why", err)
		return nil
	}
	return w
}
