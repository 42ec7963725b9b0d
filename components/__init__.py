"""The online building blocks and the instruments. Never imports prefect or mlflow."""
