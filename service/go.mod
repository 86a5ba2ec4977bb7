module github.com/throttlekit/throttlekit-go/service

go 1.26.0

require (
	github.com/throttlekit/throttlekit-go v0.0.0
	go.yaml.in/yaml/v4 v4.0.0
)

replace github.com/throttlekit/throttlekit-go => ..
