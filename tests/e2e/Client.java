import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

/** What Spring AI and LangChain4j stand on: the JDK's client as it is by default, which offers HTTP/2. */
class Client {
    public static void main(String[] arguments) throws Exception {
        byte[] body = arguments[1].getBytes();
        HttpClient client = HttpClient.newHttpClient();
        BodyPublisher[] publishers = {
            BodyPublishers.ofByteArray(body),
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)),
            BodyPublishers.ofByteArray(body),
        };
        for (BodyPublisher publisher : publishers) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("content-type", "application/json").POST(publisher).build();
            var answer = client.send(request, BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
