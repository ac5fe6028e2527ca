package metrics

import "github.com/prometheus/client_golang/prometheus"

// NewBayeux returns a collector of a Bayeux front end's metrics: the number of
// its sessions. Their connects are among the connections by long-polling.
func NewBayeux(sessions func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "halley_bayeux_sessions", Help: "Sessions of CometD and Faye clients.",
	}, func() float64 { return float64(sessions()) })
}
