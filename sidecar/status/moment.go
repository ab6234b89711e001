package status

import (
	"fmt"
	"time"
)

// moment is a time of day, with the date when it is not today's.
func moment(at, now time.Time) string {
	if at.IsZero() {
		return "-"
	}
	at = at.Local()
	if n := now.Local(); at.YearDay() != n.YearDay() || at.Year() != n.Year() {
		return at.Format("02 Jan 15:04:05")
	}
	return at.Format(clock)
}

// clock is how a time of day is shown.
const clock = "15:04:05.000"

// sinceWhen is a moment that may not be known.
func sinceWhen(at *time.Time, now time.Time) string {
	if at == nil {
		return "a moment that is not known"
	}
	return moment(*at, now)
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func ago(d time.Duration) string { return span(d) + " ago" }

// span is a duration as people say it, with no more digits than mean anything.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd %dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}
