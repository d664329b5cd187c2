package clinic.dto;

import java.time.Instant;

/** An appointment on the screen. */
public class AppointmentView {
    private long id;
    private String withDisplayName;
    private String placeTitle;
    private Instant startsAt;

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getWithDisplayName() {
        return withDisplayName;
    }

    public void setWithDisplayName(String withDisplayName) {
        this.withDisplayName = withDisplayName;
    }

    public String getPlaceTitle() {
        return placeTitle;
    }

    public void setPlaceTitle(String placeTitle) {
        this.placeTitle = placeTitle;
    }

    public Instant getStartsAt() {
        return startsAt;
    }

    public void setStartsAt(Instant startsAt) {
        this.startsAt = startsAt;
    }
}
