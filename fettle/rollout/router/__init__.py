"""Router of a rollout: nginx's configuration and process, its access log, the model servers."""
