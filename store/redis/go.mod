module github.com/throttlekit/throttlekit-go/store/redis

go 1.26.0

require (
	github.com/redis/rueidis v1.0.79
	github.com/throttlekit/throttlekit-go v0.0.0
	go.uber.org/goleak v1.3.0
)

require golang.org/x/sys v0.47.0 // indirect

replace github.com/throttlekit/throttlekit-go => ../..
